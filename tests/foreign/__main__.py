"""`python -m tests.foreign` prints the page."""

from .page import page

print(page(), end="")
