"""What looks at this machine and changes nothing."""
