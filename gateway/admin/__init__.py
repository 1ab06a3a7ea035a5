"""The control plane: FastAPI routers, one file per noun."""

from gateway.admin.control import build_control_app

__all__ = ["build_control_app"]
