"""The gateway: the path of a call, its stores and its control plane."""
