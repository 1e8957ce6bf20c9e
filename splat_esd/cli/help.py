"""The text of `splat-esd <command> --help`; its tables of keys come from the settings' models."""

from splat_esd.config.commands import (
    BenchMeshArguments,
    BenchPhiArguments,
    BenchRasterArguments,
    BenchRefineArguments,
    BenchStepArguments,
    DoctorArguments,
    EvaluateArguments,
    RehearseArguments,
    ToyArguments,
    ToysArguments,
    UiArguments,
    ZooExamArguments,
    ZooJudgeArguments,
    ZooTrainArguments,
)
from splat_esd.config.experiment import Experiment
from splat_esd.config.load import Config, ExportJob
from splat_esd.config.reference import help_table
from splat_esd.config.refine import SHARE, STRENGTH

_STUDY_KEYS = (
    "prompts", "methods", "seeds", "common", "out", "processes", "shard", "launcher", "submitit",
    "ray", "classifier", "clip",
)  # fmt: skip
_MAIN_KEYS = (
    "negative_prompt", "seed", "seeds", "keep", "device", "out", "resume",
    "viewer", "guidance.lambda", "init.path", "export.formats",
)  # fmt: skip

GENERATE = f"""\
splat-esd turns words into a 3D Gaussian splat.

  splat-esd prompt="a corgi"                 make it; everything lands in outputs/
  splat-esd prompt="a corgi" quality=draft   a first look
  splat-esd doctor                           what this machine can run

Commands
  generate KEY=VALUE...    make a splat (may be left out, as above)
  refine FROM prompt=...   change a splat you have by words (refine --help)
  export from=RUN_OR_FILE  files from a run or any splat file (export --help)
  ui                       all of this on one page in the browser (ui --help)
  view RUN_OR_FILE         look at it in the browser
  compare A B...           several runs or splat files side by side, on one page
  evaluate RUN...          faces counted, quality, variety, fidelity (evaluate --help)
  study FILE_OR_NAME       prompts x methods x seeds, and one report (study --help)
  toys                     the words the built-in prior knows (toys --help)
  toy                      the equation in two dimensions, against its closed form (toy --help)
  doctor                   what this machine can run, and why not the rest
  rehearse                 what a large prior will take here, nothing downloaded
  bench raster|step|...    how fast, and how good meshes are (bench --help)
  zoo train|judge|exam     train the small built-in prior again, or its judge; examine it

Settings are written KEY=VALUE. The ones to know:
  prompt="..."             what to make; any text, taken letter by letter
  quality=normal           draft | normal | high
  prior=auto               zoo (toys, CPU) | sd21 sd15 sdxl sd35 flux2_klein mvdream
  prior.lora=FILE:0.7      a LoRA of yours, peft's, diffusers' or kohya's, fused into the prior
  guidance=esd             esd | vsd | sds | csd | sdi
{help_table(Config, _MAIN_KEYS)}

Also cameras.*, rasterizer.*, density.*, optim.*, regularize.*, mesh.*, log.*: every key, its
default and its meaning stand in README.md in
  {{conf}}
"""

REFINE = f"""\
splat-esd refine FROM prompt="..." [KEY=VALUE...]

  splat-esd refine corgi.ply prompt="a blue corgi"
  splat-esd refine scan.spz prompt="a corgi wearing a red scarf" strength=0.7 front=90
  splat-esd refine outputs/a-corgi/RUN prompt="a green corgi" region=[0,0,0.4,0.5]

Changes a splat by words: of any program, or a run of your own. The result is a run like any other,
with a page of before and after; Ctrl-C and resume work as usual.

  strength={STRENGTH}             How far it may go: the highest diffusion time, in (0, 1].
  keep=shape               shape: places, sizes and opacities stay near what they were, colours
                           are free | colour: the other way round | none
  region=null              Where alone it may change: [x, y, z, radius] or [low x y z, high x y z]
                           in the file's axes.
  front=auto               Azimuth of its front in degrees (0 is +x, 90 is +y, z up); auto: the
                           prior is asked which view is the front one.

New splats grow only if that is asked for: keep=none density=default. Steps are {SHARE:g} of the
quality's. All settings of splat-esd generate hold too, import.up and import.crop among them.
"""

EXPORT = f"""\
splat-esd export from=RUN_OR_FILE [out=FOLDER] [formats=[ply,...]] [export.KEY=VALUE...]

  splat-esd export from=RUN formats=[turntable] export.size=512
  splat-esd export from=cat.ply out=cat formats=[ply] export.up=z

{help_table(ExportJob)}

from= is a run, or a splat file of any program, known by its content: .ply (plain, compressed, of
any spelling), .spz, .splat, .glb, gsplat's and Nerfstudio's .pt, a model's folder. A line says
what was assumed, dropped or cut.

formats= is short for export.formats=. The formats: ply | compressed (.ply) | splat | spz | gltf
(.glb) | usda are the splat, for other programs; glb | obj | stl a mesh with its texture (stl:
without); turntable, strip (.mp4 and .webp) | sheet (.png) | viewer (.html).
"""

VIEW = """\
splat-esd view RUN_OR_FILE [import.up=z] [import.crop=auto]

Opens a run's splat, or a splat file of any program, in the browser; served on this machine only.
"""

UI = f"""\
splat-esd ui [KEY=VALUE...]

Serves one page, to this machine alone: ask for runs in words, watch them grow, stop and continue
them, look at what was made and take its files. Each run is a process of its own, one at a time;
Ctrl-C saves the one that is worked on.

{help_table(UiArguments)}
"""

COMPARE = """\
splat-esd compare RUN_OR_FILE RUN_OR_FILE... [out=compare.html] [import.up=z]

Writes one page: the splats side by side under one camera, how they developed, turntables, sheets,
scores of splat-esd evaluate, settings. The page is one file and opens from disk.
"""

EVALUATE = f"""\
splat-esd evaluate RUN... [classifier=FOLDER] [clip=FOLDER]

Renders 24 views around each run's splat, prints a table and writes evaluation.json into the run.

  free, faces, arc    Janus: a face is two or more neighbouring views classified as taken within 60
                      degrees of the front; free means exactly one, over at most 180 degrees, or
                      an object that looks the same from all sides
  mirrored            left and right sides are swapped: the body faces backwards, with the face
                      painted on its back
  right               which parts of the prompt the front views show
  IQ, IV, IV-IQ       inception quality (lower is sharper), variety (higher is more varied), and
                      their difference, the mutual information of view and class, in nats
  PSNR, SSIM          against renders of the true object, at the azimuth that agrees best
  CLIP                100 times the mean cosine of views and prompt

Runs of the zoo prior are graded by the zoo's judge. For others, and for CLIP:

{help_table(EvaluateArguments, ("classifier", "clip"))}
"""

STUDY = f"""\
splat-esd study FILE_OR_NAME [report] [KEY=VALUE...]

  splat-esd study janus                      the file conf/experiment/janus.yaml
  splat-esd study janus seeds=2 steps=50 out=studies/look    a first look
  splat-esd study mine.yaml processes=4
  splat-esd study mine.yaml prompts=@prompts.txt shard=3/64    one part of thousands of runs
  splat-esd study mine.yaml report           no run, only the report of what is there

A file of your own:
  prompts: [a cat, a red panda]
  methods: {{vsd: [guidance=vsd], esd-1: [guidance=esd, guidance.lambda=1]}}
  seeds: 4
  common: [quality=draft]

Runs every prompt with every method and every seed, each in a folder of its own
(OUT/PROMPT/METHOD/sSEED), evaluates them, and writes report.html, sheets.png, turning.webp (of up
to 24 runs), methods.svg and results.json into OUT. Finished runs are kept, stopped ones continue,
and a failed run stops no other: give the same command again. Each run's output is in its log.txt.

{help_table(Experiment, _STUDY_KEYS)}
"""

TOY = f"""\
splat-esd toy [KEY=VALUE...]

SDS, VSD and ESD in two dimensions, where all scores are known: how much of a Gaussian's variance
each method keeps, and which sides the views around an object show if the prior prefers the front.
Takes about two minutes; writes toy.json and toy.png.

{help_table(ToyArguments)}
"""

TOYS = f"""\
splat-esd toys [out=toys.png]

Lists what the built-in prior knows: toys, colours, things to wear. For anything else: prior=sd21.

{help_table(ToysArguments)}
"""

DOCTOR = f"""\
splat-esd doctor [RUN] [prior=NAME]

Checks what this machine can run, and what is missing for the rest. Uses no network.
With the folder of a run: what it is, whether it can be continued, and why not; changes nothing.
With prior=sd15 or another large one: the memory that a step with it needs, before it is downloaded.

{help_table(DoctorArguments)}
"""

REHEARSE = f"""\
splat-esd rehearse [prior=sd15] [KEY=VALUE...]

Makes a few steps with a large prior's real shapes and random weights, and prints seconds and memory
by part. Nothing is downloaded: what a run will take is known before.

{help_table(RehearseArguments)}
"""

BENCH = f"""\
splat-esd bench raster [KEY=VALUE...]

Times the CPU rasteriser on seeded scenes, against PyTorch and against the processor's peak rate.
Takes about five minutes; run nothing else meanwhile.

{help_table(BenchRasterArguments)}

splat-esd bench step [KEY=VALUE...]

Times a step of a run by the embedded prior at normal quality: spread over processes, in one of as
many threads and in one of one thread; each part of it, and how near the passes of the denoiser come
to what this processor can do. With against=PYTHON beside another installation, in turn.

{help_table(BenchStepArguments)}

splat-esd bench phi RUN... [KEY=VALUE...]

Teaches phi alone on the splats of finished runs and says what it has learnt of the camera: its loss
with and without, at several times. Two minutes each.

{help_table(BenchPhiArguments, ("steps", "out"))}

splat-esd bench refine [KEY=VALUE...]

Refines true toys by words and says how many came out as asked, with one face and their silhouette.
A minute or two each; a later call goes on where one was stopped.

{help_table(BenchRefineArguments)}

splat-esd bench mesh [RUN_OR_FILE ...] [KEY=VALUE...]

Makes a mesh of each splat and of three toys whose true surface is known; prints its fidelity to
the splat, its distance from the true surface, and its cost. About twenty seconds each.

{help_table(BenchMeshArguments, ("toys", "threads", "out"))}
  mesh.KEY=VALUE           As for export.
"""

ZOO = f"""\
splat-esd zoo train|judge|exam [KEY=VALUE...]

train and judge continue where they were stopped: give the same command again.

zoo train: trains the small embedded prior anew, from its toys.

{help_table(ZooTrainArguments)}

zoo judge: trains the network that recognises toys. Metrics use it, generation never does.

{help_table(ZooJudgeArguments)}

zoo exam: draws samples of a prior and lets the judge grade them.

{help_table(ZooExamArguments)}
"""

HELP = {
    "generate": GENERATE,
    "refine": REFINE,
    "export": EXPORT,
    "ui": UI,
    "view": VIEW,
    "compare": COMPARE,
    "evaluate": EVALUATE,
    "study": STUDY,
    "toys": TOYS,
    "toy": TOY,
    "doctor": DOCTOR,
    "rehearse": REHEARSE,
    "bench": BENCH,
    "zoo": ZOO,
}
