"""`GET /api/recommendations/{user_id}`: the list from live votes, and why each post is in it."""

from fastapi import APIRouter

router = APIRouter(tags=["recommendations"])
