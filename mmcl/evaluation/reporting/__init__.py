"""What a report folder consists of: its page, its pictures, and how it is read again."""
