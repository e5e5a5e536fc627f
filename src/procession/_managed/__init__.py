"""What stands behind `managers`: proxies, their server, and the news of its end."""
