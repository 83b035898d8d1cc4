"""Images, sounds, films and files of a message as Gemini's parts: the data itself, or where Google may fetch it."""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import urlsplit

from gateway.contract import Target
from gateway.conversation import Media, read_media
from gateway.errors import InvalidRequest, UnsupportedParameter
from gateway.hub import Json

RESOLUTIONS: Mapping[str, str] = {"low": "MEDIA_RESOLUTION_LOW", "high": "MEDIA_RESOLUTION_HIGH"}

_BY_KIND: Mapping[str, str] = {
    "image": "image/jpeg",
    "audio": "audio/wav",
    "video": "video/mp4",
    "file": "application/pdf",
}
_BY_ENDING: Mapping[str, str] = {
    **{ending: f"image/{ending}" for ending in ("png", "webp", "gif", "bmp", "heic", "heif", "jpeg", "avif")},
    **{ending: f"audio/{ending}" for ending in ("wav", "mp3", "flac", "ogg", "aac", "aiff", "opus")},
    **{ending: f"video/{ending}" for ending in ("mp4", "webm", "mpeg", "mpg", "wmv", "3gpp")},
    **{ending: f"text/{ending}" for ending in ("html", "css", "csv", "xml", "rtf")},
    "jpg": "image/jpeg",
    "m4a": "audio/mp4",
    "mov": "video/quicktime",
    "avi": "video/x-msvideo",
    "pdf": "application/pdf",
    "json": "application/json",
    "txt": "text/plain",
    "md": "text/markdown",
    "py": "text/x-python",
}
# What Google itself keeps: any model reads it by its address.
_OWN = ("https://generativelanguage.googleapis.com/v1beta/files/", "gs://")
_YOUTUBE = frozenset(("youtube.com", "www.youtube.com", "m.youtube.com", "youtu.be"))
# Nobody but Google can read these: no use in fetching them for it.
OWN_URLS = (*_OWN, *(f"https://{host}/" for host in sorted(_YOUTUBE)))


def media_part(part: Json, target: Target) -> Json:
    """One medium as a part. Raises UnsupportedParameter for what this model cannot fetch."""
    media = read_media(part)
    if media is None:
        raise InvalidRequest(f"Invalid messages: a part of type {part.get('type')!r} is not known.", param="messages")
    if media.data:
        return {"inlineData": {"mimeType": media.media_type or _media_type(media), "data": media.data}}
    return {"fileData": {"mimeType": _media_type(media), "fileUri": _address(media, target)}}


def detail_of(part: Json) -> str | None:
    """Gemini's resolution for an image's `detail`; None for auto and for what is no image."""
    image = part.get("image_url")
    detail = image.get("detail") if isinstance(image, dict) else None
    return RESOLUTIONS.get(detail) if isinstance(detail, str) else None


def _address(media: Media, target: Target) -> str:
    if media.file_id:
        if media.file_id.startswith(_OWN):
            return media.file_id
        if media.file_id.startswith("files/"):
            return _OWN[0] + media.file_id.removeprefix("files/")
        raise UnsupportedParameter("messages", "names a file by an id that this provider does not know")
    url = media.url
    if not url:
        raise InvalidRequest(f"Invalid messages: a part of kind {media.kind} is empty.", param="messages")
    if url.startswith(_OWN) or _host(url) in _YOUTUBE:
        return url
    if url.lower().startswith("https://") and ("project" in target.options or target.abilities.get("url_sources")):
        return url
    raise UnsupportedParameter("messages", "holds a URL that this model cannot fetch; send the content as a data: URL")


def _host(url: str) -> str:
    try:
        return urlsplit(url).hostname or ""
    except ValueError as error:
        raise InvalidRequest("Invalid messages: a URL cannot be read.", param="messages") from error


def _media_type(media: Media) -> str:
    """By the ending of the name or of the URL's path, else by kind: Google insists on one."""
    if _host(media.url) in _YOUTUBE:
        return "video/mp4"
    path = (media.name or media.url or media.file_id).partition("?")[0].partition("#")[0]
    return _BY_ENDING.get(path.rpartition(".")[2].lower(), _BY_KIND[media.kind])
