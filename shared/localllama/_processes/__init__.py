"""Child processes that cannot outlive us: launching and stopping them, the supervisor, private directories."""
