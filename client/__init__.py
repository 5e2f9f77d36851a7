"""What runs beside private data: one client's rows, local weights and ledger."""
