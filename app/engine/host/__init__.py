"""The process of one model: reads questions, steps the batch, tells what comes of it. It knows no web and no hub."""
