"""Plans: what a training would hold, before anything is trained."""

from __future__ import annotations

from anyio.to_thread import run_sync
from fastapi import APIRouter, Request, Response

from caudal.service.asks import NewPlan, PathId
from caudal.service.auth import Reads, Runs
from caudal.service.context import Here
from caudal.service.once import Key, do_once, once_of
from caudal.service.plans import PlanView
from caudal.service.problems import documented

router = APIRouter(prefix="/plans", tags=["plans"])


@router.post("", status_code=201, responses=documented(404, 409, 413, 507), operation_id="create_plan")
async def create_plan(
    request: Request, response: Response, here: Here, caller: Runs, body: NewPlan, key: Key = None
) -> PlanView:
    """Plan: measures the model in a child process, which takes some seconds. Only headers are read."""

    def make() -> PlanView:
        return PlanView.model_validate(here.roots.veil.all(here.planner.plan(body).model_dump()))

    once = once_of(caller, key, request, body)
    made = await run_sync(do_once, here.store, once, response, 201, PlanView, make, limiter=here.heavy)
    response.headers["Location"] = f"/api/v1/plans/{made.id}"
    return made


@router.get("/{plan_id}", responses=documented(304, 404), operation_id="get_plan")
def get_plan(here: Here, caller: Reads, plan_id: PathId) -> PlanView:
    """A plan that was made."""
    return PlanView.model_validate(here.roots.veil.all(here.planner.get(plan_id).model_dump()))
