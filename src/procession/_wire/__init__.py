"""What crosses a socket, and in which words. Used by both ends; knows neither."""
