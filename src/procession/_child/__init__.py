"""A child's first and last steps, from the start frame to its last words."""
