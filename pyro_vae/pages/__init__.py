"""A trained model to look at: its pictures, and a page of all that is known of a run."""
