"""What is wrong with the settings, as one line for the person who wrote them."""


class SettingsProblem(Exception):
    """A setting is unknown, has a value that is not allowed, or stands in a file that cannot be read.

    The text is one complete line: where it stands, which key, and what is allowed. It never holds a secret's value.
    """
