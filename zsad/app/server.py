"""The addresses of the app: its page, and what the page and programs ask for."""

from __future__ import annotations

import asyncio
import contextlib
import mimetypes
import socket
import tempfile
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Annotated, Any, TypeVar

import uvicorn
from fastapi import FastAPI, File, Form, HTTPException, Request, UploadFile
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, HTMLResponse, JSONResponse, Response
from starlette.exceptions import HTTPException as AnyHTTPException  # those of routing, too

from zsad import __version__, registry
from zsad.app.described import described
from zsad.app.guard import Guard
from zsad.app.scoring import ROLES, Ask, package, score
from zsad.app.settings import AppSettings, Choice
from zsad.app.uploads import Run, Runs, Upload
from zsad.app.worker import Worker
from zsad.errors import (
    DataError,
    RequestError,
    WeightsError,
    ZsadError,
    counted,
    gist,
    unknown,
)
from zsad.inference.page import PredictionPage
from zsad.inference.references import can_refer
from zsad.page import asset, embedded

R = TypeVar("R")
SOURCES = "img-src 'self' data: blob:; script-src 'self' 'unsafe-inline'; connect-src 'self'"
PAGE_POLICY = (
    f"default-src 'none'; {SOURCES}; style-src 'unsafe-inline'; frame-ancestors 'none'; "
    "base-uri 'none'; form-action 'self'"
)
FILE_POLICY = "default-src 'none'; sandbox"  # of what was uploaded: nothing in it runs
MARK = "<!--app-->"
FIELDS = (  # of POST /predict
    "pictures", "file", "class_name", "method", "backbone", "good", "role", "like",
    "image_threshold", "threshold", "page",
)  # fmt: skip


class Server:
    """One app: its worker, its folder, and the application that a web server runs."""

    def __init__(self, settings: AppSettings, folder: Path) -> None:
        self.settings, self.folder = settings, folder
        self.worker = Worker(settings)
        self.runs = Runs(folder, settings.limits.runs)
        self.application = self._application()
        self.guard = Guard(self.application, settings)

    def _application(self) -> FastAPI:
        app = FastAPI(
            title="zsad app",
            version=__version__,
            description="Scores pictures by zero-shot anomaly detection.",
            docs_url=None,  # its scripts come from another host; see self.docs
            redoc_url=None,
            lifespan=self._life,
        )
        app.add_exception_handler(ZsadError, _refused)
        app.add_exception_handler(RequestValidationError, _refused)
        app.add_exception_handler(AnyHTTPException, _refused)
        app.add_exception_handler(Exception, _failed)
        app.get("/", response_class=HTMLResponse)(self.page)
        app.get("/docs", response_class=HTMLResponse, include_in_schema=False)(self.docs)
        app.get("/health")(self.health)
        app.get("/methods")(self.methods)
        app.post("/predict")(self.predict)
        app.post("/export", response_class=FileResponse)(self.export)
        app.get("/runs/{identity}/{part}/{inner:path}", response_class=FileResponse)(self.file)
        return app

    @contextlib.asynccontextmanager
    async def _life(self, _: FastAPI) -> AsyncIterator[None]:
        yield
        self.worker.close()

    async def _work(self, work: Callable[[], R]) -> R:
        return await asyncio.wrap_future(self.worker.submit(work))

    # ------------------------------------------------------------------------ what is asked
    async def page(self) -> Response:
        """The page to drop pictures on."""
        empty = PredictionPage(self.folder, lambda path, content: str(path))
        return self._shown(empty.document(), None)

    async def docs(self) -> Response:
        """What programs ask for, for people to read."""
        page = described(self.application.openapi())
        return HTMLResponse(page, headers={"content-security-policy": PAGE_POLICY})

    async def health(self) -> dict[str, Any]:
        """Whether the app answers, which method it holds, and how many requests are under way."""
        return {
            "status": "ok",
            "version": __version__,
            "method": self.worker.name or None,
            "busy": self.guard.busy,
        }

    async def methods(self) -> dict[str, Any]:
        """Methods and backbones to choose from; ``missing`` says what a method lacks."""
        return _choices(self.settings)

    async def predict(
        self,
        request: Request,
        pictures: Annotated[list[UploadFile] | None, File(description="to be scored")] = None,
        file: Annotated[
            UploadFile | None,
            File(description="one picture, in place of pictures; the answer is its line alone"),
        ] = None,
        class_name: Annotated[str | None, Form(description="what they show: 'metal nut'")] = None,
        method: Annotated[str | None, Form()] = None,
        backbone: Annotated[str | None, Form()] = None,
        good: Annotated[list[UploadFile] | None, File(description="normal pictures")] = None,
        role: Annotated[str, Form(description="of good: calibrate or references")] = ROLES[0],
        like: Annotated[str | None, Form(description="a run whose thresholds hold")] = None,
        image_threshold: Annotated[float | None, Form()] = None,
        threshold: Annotated[float | None, Form()] = None,
        page: Annotated[bool, Form(description="keep a page to look at")] = False,
    ) -> Response:
        """Score pictures: what ``zsad predict`` prints of each, and its ``sha256``.

        Of ``file``, that line itself; of ``pictures``, a list of them; ``warnings``: what the
        command would say of them on standard error.  422 where no picture could be scored.
        """
        settings = self.settings
        await _only(request, FIELDS, several=("pictures", "good"))
        if file is not None and (pictures or page):
            raise RequestError("file: is scored alone; send pictures for several, or for a page")
        pictures = [file] if file is not None else pictures or []
        if not pictures:
            raise RequestError("pictures: Field required; or send one picture as file")
        if class_name is None and not settings.class_name:
            raise RequestError("class_name: Field required; the app was started without one")
        name = settings.class_name if class_name is None else class_name
        choice = Choice(method or settings.method, backbone or settings.backbone)
        settings.check(choice)
        if role not in ROLES:
            raise RequestError(f"role '{role}': choose one of {', '.join(ROLES)}")
        if len(pictures) + len(good or ()) > settings.limits.pictures:
            raise HTTPException(
                413, f"more than {counted(settings.limits.pictures, 'picture')} in a request"
            )
        earlier = self._run(like) if like else None
        with self.runs.one(keep=page) as run:
            ask = Ask(
                choice,
                name,
                await _kept(run, "pictures", pictures),
                await _kept(run, "good", good or []),
                role,
                earlier,
                image_threshold,
                threshold,
                page,
            )
            found, warnings = await self._work(lambda: score(self.worker, ask, run))
            said = {"warnings": warnings} if warnings else {}
            answer: dict[str, Any] = {"predictions": found, **said}
            errors = [one["error"] for one in found if one.get("error")]
            if len(errors) == len(found):
                raise DataError(errors[0] if len(errors) == 1 else "; ".join(errors))
            if file is not None:
                return JSONResponse(found[0] | said)
            if page:
                answer |= {"run": run.id, "page": f"/runs/{run.id}/found/"}
            return JSONResponse(answer)

    async def export(
        self,
        request: Request,
        run: Annotated[str, Form(description="whose method, class name and thresholds")],
        format: Annotated[str, Form(description="onnx or openvino")] = "onnx",
    ) -> Response:
        """The method of a run as one file, for ``zsad run``."""
        await _only(request, ("run", "format"))
        kept = self._run(run)
        folder = Path(tempfile.mkdtemp(dir=self.folder))
        try:
            path = folder / "package.zsad"
            await self._work(lambda: package(self.worker, kept, path, format))
            content = path.read_bytes()
        finally:
            for left in folder.iterdir():
                left.unlink()
            folder.rmdir()
        name = kept.choice.method if kept.choice else "method"
        headers = {"content-disposition": f'attachment; filename="{name}.zsad"'}
        return Response(content, media_type="application/octet-stream", headers=headers)

    async def file(self, identity: str, part: str, inner: str = "") -> Response:
        """A file of a run that is kept: its page, its table, its pictures."""
        run = self._run(identity)
        path = run.file(part, inner)
        if path is None:
            raise HTTPException(404, "there is no such file")
        if part == "found" and path.suffix == ".html":
            return self._shown(path.read_text(encoding="utf-8"), run)
        kind = mimetypes.guess_type(path.name)[0] or ""
        if part != "found" and not kind.startswith("image/"):
            kind = ""
        headers = {"content-security-policy": FILE_POLICY}
        return FileResponse(path, media_type=kind or "application/octet-stream", headers=headers)

    # ------------------------------------------------------------------------------- helpers
    def _run(self, identity: str) -> Run:
        run = self.runs.get(identity)
        if run is None:
            raise HTTPException(404, "there is no such run, or it is no longer kept")
        return run

    def _shown(self, document: str, run: Run | None) -> Response:
        """A page of pictures with the form above them."""
        state: dict[str, Any] = {"run": None}
        if run is not None and run.choice is not None:
            state = {
                "run": run.id,
                "method": run.choice.method,
                "backbone": run.choice.backbone,
                "class_name": run.class_name,
                "calibrated": run.calibration is not None,
                "references": len(run.references),
            }
        form = asset("app.html").replace("{{STYLE}}", asset("app.css"))
        form = form.replace("{{STATE}}", embedded(state)).replace("{{SCRIPT}}", asset("app.js"))
        headers = {"content-security-policy": PAGE_POLICY}
        return HTMLResponse(document.replace(MARK, form, 1), headers=headers)


async def _only(request: Request, known: tuple[str, ...], several: tuple[str, ...] = ()) -> None:
    """Raise :class:`RequestError` for what would change nothing: a field that is unknown, empty, or
    given again though it is none of ``several``, and words behind a ``?``."""
    place = f"{request.method} {request.url.path}"
    for name in request.query_params:
        raise RequestError(f"?{name}: {place} reads its form alone; send {name} as a field of it")
    form = await request.form()
    for name, value in form.multi_items():
        if name not in known:
            raise unknown("field", name, known, f"of {place}; see /docs")
        if value == "":
            raise RequestError(f"{name}: the value is empty; give one, or leave the field out")
        if name not in several and len(form.getlist(name)) > 1:
            more = "send several pictures as pictures" if name == "file" else "give one"
            raise RequestError(f"{name}: is given {len(form.getlist(name))} times; {more}")


async def _kept(run: Run, kind: str, files: list[UploadFile]) -> list[Upload]:
    contents = [(file.filename or "", await file.read()) for file in files]
    return await asyncio.to_thread(run.keep, kind, contents)


def _choices(settings: AppSettings) -> dict[str, Any]:
    methods = [
        {
            "name": name,
            "title": entry.title,
            "summary": entry.summary,
            "compares": entry.transductive,
            "references": can_refer(entry.config_class()),
            "missing": {b: settings.missing(Choice(name, b)) for b in settings.backbones()},
        }
        for name, entry in registry.methods().items()
    ]
    return {
        "methods": methods,
        "backbones": settings.backbones(),
        "method": settings.method,
        "backbone": settings.backbone,
        "class_name": settings.class_name,
        "most_pictures": settings.limits.pictures,
        "most_bytes": settings.limits.upload,
    }


# ------------------------------------------------------------------------------------ errors
async def _refused(_: Request, error: Exception) -> Response:
    """The line that the command line would print, as ``error``."""
    if isinstance(error, AnyHTTPException):
        return JSONResponse({"error": str(error.detail)}, error.status_code)
    if isinstance(error, RequestValidationError):
        first = error.errors()[0]
        text = f"{first['loc'][-1]}: {first['msg']}"
        return JSONResponse({"error": text}, 400)
    unusable = isinstance(error, (DataError, WeightsError))
    return JSONResponse({"error": str(error)}, 422 if unusable else 400)


async def _failed(_: Request, error: Exception) -> Response:
    return JSONResponse({"error": f"internal error, {type(error).__name__}: {gist(error)}"}, 500)


# ----------------------------------------------------------------------------------- serving
def listening(host: str, port: int) -> socket.socket:
    """A socket that is bound.  Raises :class:`RequestError` where that cannot be."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    found = socket.socket(family, socket.SOCK_STREAM)
    found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        found.bind((host, port))
    except (OSError, OverflowError) as error:
        found.close()
        why = getattr(error, "strerror", None) or error
        raise RequestError(f"{host}:{port} cannot be used ({why}); give another --port") from None
    return found


def web_server(server: Server) -> uvicorn.Server:
    """The web server of an app."""
    config = uvicorn.Config(
        server.guard,
        log_level="warning",
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=5,
        backlog=256,
    )
    return uvicorn.Server(config)


def serve(settings: AppSettings, folder: Path, port: int, told: Callable[[str], None]) -> None:
    """Serve until interrupted; ``told`` is given the address."""
    tempfile.tempdir = str(folder)  # large uploads are spooled there, and nowhere else
    with listening(settings.host, port) as bound:
        host = f"[{settings.host}]" if ":" in settings.host else settings.host
        told(f"http://{host}:{bound.getsockname()[1]}/")
        web_server(Server(settings, folder)).run(sockets=[bound])
