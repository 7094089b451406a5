"""`GET /api/feeds/live`: tells an open page that its feed has changed."""

from fastapi import APIRouter

router = APIRouter(tags=["feeds"])
