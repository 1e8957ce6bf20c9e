"""The result in pictures: a film that plays anywhere, an animation for a README, a sheet."""

import math
from collections.abc import Generator
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from torch import Tensor

from splat_esd.errors import EnvironmentProblem
from splat_esd.formats.atomic import replacing

_LABEL_HEIGHT = 22


def write_turntable(
    frames: UInt8[Tensor, "T H W C"] | UInt8[np.ndarray, "T H W C"], stem: Path | str, fps: int
) -> tuple[Path, Path]:
    """Writes `stem`.mp4 (H.264) and `stem`.webp (animated, looping).

    A fourth channel is alpha: the animation is transparent, the film, which cannot be, over white.
    Odd sizes get their last row or column twice in the film: H.264 halves the colour planes.

    Arguments:
        frames: One full turn; the last frame comes just before the first.
        fps: Frames per second.
    Raises:
        ValueError: If there are no frames.
        EnvironmentProblem: If the ffmpeg of imageio-ffmpeg is missing or fails.
    """
    frames = _as_array(frames)
    if not len(frames):
        raise ValueError("write_turntable: expected at least one frame, got none.")
    film, animation = Path(f"{stem}.mp4"), Path(f"{stem}.webp")
    _write_film(_opaque(frames), film, fps)
    write_animation(frames, animation, fps)
    return film, animation


def write_animation(frames: UInt8[np.ndarray, "T H W C"], path: Path, fps: int) -> None:
    """Writes an animated WebP that loops."""
    from PIL import Image

    first, *rest = [Image.fromarray(frame) for frame in frames]
    with replacing(path) as part:
        first.save(
            part,
            format="WEBP",
            save_all=True,
            append_images=rest,
            duration=round(1000 / fps),
            loop=0,
            quality=80,
        )


def write_sheet(
    images: UInt8[Tensor, "T H W C"] | UInt8[np.ndarray, "T H W C"],
    path: Path | str,
    labels: list[str],
    *,
    columns: int,
    title: str = "",
) -> Path:
    """Writes one picture of all views in a grid, each with its label below, and a title at its foot
    in small print.

    Views with a fourth channel, alpha, make a transparent picture.

    Arguments:
        images: The views, filled in row by row.
        path: Of the PNG.
        labels: One line per view; long ones push the views apart.
        columns: Views in a row.
    Raises:
        ValueError: If there are no views, or not one label per view.
    """
    from PIL import Image, ImageDraw, ImageFont

    images = _as_array(images)
    if not len(images) or len(images) != len(labels):
        raise ValueError(
            f"write_sheet: expected as many labels as views and at least one, "
            f"got {len(images)} views and {len(labels)} labels."
        )
    font = ImageFont.load_default(size=13)
    count, height, width = images.shape[:3]
    columns = min(columns, count)
    across = max(width, *(math.ceil(font.getlength(label)) + 8 for label in labels))
    down = height + _LABEL_HEIGHT
    mode, ground = ("RGBA", (255, 255, 255, 0)) if images.shape[3] == 4 else ("RGB", "white")
    tall = math.ceil(count / columns) * down
    foot = _LABEL_HEIGHT if title else 0
    sheet = Image.new(mode, (columns * across, tall + foot), ground)
    draw = ImageDraw.Draw(sheet)
    for i, (image, label) in enumerate(zip(images, labels, strict=True)):
        left, top = i % columns * across, i // columns * down
        sheet.paste(Image.fromarray(image), (left + (across - width) // 2, top))
        middle = (left + across / 2, top + height + _LABEL_HEIGHT / 2)
        draw.text(middle, label, fill="black", font=font, anchor="mm")
    if title:
        middle = (columns * across / 2, tall + foot / 2)
        draw.text(middle, title, fill="#555", font=font, anchor="mm")
    with replacing(path) as part:
        sheet.save(part, format="PNG")
    return Path(path)


def _write_film(frames: np.ndarray, path: Path, fps: int) -> None:
    import imageio_ffmpeg

    odd_height, odd_width = frames.shape[1] % 2, frames.shape[2] % 2
    frames = np.pad(frames, [(0, 0), (0, odd_height), (0, odd_width), (0, 0)], mode="edge")
    height, width = frames.shape[1:3]
    with replacing(path) as part:
        try:
            _feed(
                imageio_ffmpeg.write_frames(
                    str(part),
                    (width, height),
                    fps=fps,
                    quality=8,
                    macro_block_size=2,
                    output_params=["-movflags", "+faststart"],
                ),
                frames,
            )
        except (RuntimeError, OSError) as error:
            reason = str(error).strip().splitlines()[0]
            raise EnvironmentProblem(f"ffmpeg could not write {path}: {reason}") from error


def _feed(writer: Generator[None, np.ndarray | None, None], frames: np.ndarray) -> None:
    try:
        writer.send(None)
        for frame in frames:
            writer.send(np.ascontiguousarray(frame))
    finally:
        writer.close()


def _opaque(frames: np.ndarray) -> np.ndarray:
    if frames.shape[3] == 3:
        return frames
    alpha = frames[..., 3:] / np.float32(255)
    return (frames[..., :3] * alpha + 255 * (1 - alpha)).round().astype(np.uint8)


def _as_array(images: Tensor | np.ndarray) -> np.ndarray:
    return images.cpu().numpy() if isinstance(images, Tensor) else images
