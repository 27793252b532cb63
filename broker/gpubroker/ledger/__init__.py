"""The durable record: every SQL statement lives here."""
