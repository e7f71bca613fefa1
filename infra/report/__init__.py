"""What a session came to: its tables, its figures in numbers, and a page that shows them."""
