"""Usage that did not pass the gateway: read, attributed, rated and recorded like a call."""
