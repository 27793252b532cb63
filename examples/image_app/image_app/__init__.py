"""A small web app that makes pictures with ComfyUI, and pays for a GPU only while it does."""

from __future__ import annotations

from image_app.web import create_app

__all__ = ["create_app"]
