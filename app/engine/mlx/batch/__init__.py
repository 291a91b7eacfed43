"""One model's requests on their way through the device."""
