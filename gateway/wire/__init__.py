"""One module per wire format: request facts, usage fold, error shape."""
