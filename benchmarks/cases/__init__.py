"""What is measured: each module yields the lines of one table; its name is the name on the command line."""
