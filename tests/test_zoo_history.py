import json

from PIL import Image

from splat_esd.zoo.prior.history import CAPTIONS, write_history
from splat_esd.zoo.world.captions import parse


def work_of(out, *, lines):
    (out / "work" / "samples").mkdir(parents=True)
    for minutes in (20, 100):
        Image.new("RGB", (64, 8), "red").save(out / "work" / "samples" / f"{minutes:04d}.png")
    for name in ("vae", "unet") if lines else ():
        log = [{"step": 100 * i, "minutes": i / 2, "loss": float(i)} for i in range(1, lines + 1)]
        text = "".join(json.dumps(line) + "\n" for line in log)
        (out / "work" / f"{name}.jsonl").write_text(text)
    return out


def test_a_long_curve_is_thinned_by_means(tmp_path):
    write_history(work_of(tmp_path, lines=120))
    curve = json.loads((tmp_path / "training.json").read_text())["unet"]
    assert len(curve["loss"]) == 60 and curve["loss"][0] == 1.5
    assert curve["step"][-1] == 12000 and curve["minutes"][-1] == 60.0


def test_what_was_drawn_on_the_way_stands_in_rows(tmp_path):
    write_history(work_of(tmp_path, lines=0))
    with Image.open(tmp_path / "training.png") as sheet:
        assert sheet.width == 32 and sheet.height == 2 * (4 + 14)
        assert sheet.getpixel((3, 16))[0] > 200 and sheet.getpixel((30, 2)) == (255, 255, 255)


def test_every_caption_on_the_way_is_one_of_the_zoos():
    assert len({parse(caption) for caption in CAPTIONS}) == len(CAPTIONS)
