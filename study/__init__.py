"""The code of the book: what is compared, what is claimed, how it is judged and shown."""
