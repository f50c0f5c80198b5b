"""``guard``: someone's optimizer under the eyes of ``compare``, as one command or pass by pass."""
