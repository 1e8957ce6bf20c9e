"""What `splat-esd <command> --help` says; its tables of keys come from the settings' models."""

from splat_esd.config.load import Config, ExportJob
from splat_esd.config.reference import help_table

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
  export from=RUN_OR_PLY   write files from a run or a .ply (export --help)
  view RUN_OR_PLY          look at it in the browser
  compare A B...           several runs or .ply side by side, on one page
  evaluate RUN...          faces counted, quality, variety, fidelity (evaluate --help)
  study FILE_OR_NAME       prompts x methods x seeds, and one report (study --help)
  toy                      the equation in two dimensions, against its closed form (toy --help)
  doctor                   what this machine can run, and why not the rest
  bench raster | mesh     how fast the CPU rasteriser is here; how good meshes are
  zoo train|judge|exam     train the small built-in prior again, or its judge; examine it

Settings are written KEY=VALUE. The ones to know:
  prompt="..."             what to make; any text, taken letter by letter
  quality=normal           draft | normal | high
  prior=auto               zoo (built in, toys, CPU) | sd21 | sd15 (Stable Diffusion, GPU)
  guidance=esd             esd | vsd | sds
{help_table(Config, _MAIN_KEYS)}

Also cameras.*, rasterizer.*, density.*, optim.*, regularize.*, mesh.*, log.*: every key, its
default and its meaning stand in README.md in
  {{conf}}
"""

EXPORT = f"""\
splat-esd export from=RUN_OR_PLY [out=FOLDER] [formats=[ply,...]] [export.KEY=VALUE...]

  splat-esd export from=RUN formats=[turntable] export.size=512
  splat-esd export from=cat.ply out=cat formats=[ply] export.up=z

{help_table(ExportJob)}

formats= is short for export.formats=. The formats: ply | splat | spz | gltf (.glb) are the splat,
for other programs; glb | obj | stl a mesh with its texture (stl: without); turntable, strip (.mp4
and .webp) | sheet (.png) | viewer (.html).
"""

VIEW = """\
splat-esd view RUN_OR_PLY

Opens a run's splat, or any splat .ply, in the browser; served on this machine only.
"""

COMPARE = """\
splat-esd compare RUN_OR_PLY RUN_OR_PLY... [out=compare.html]

Writes one page: the splats side by side under one camera, how they grew, turntables, sheets,
scores of splat-esd evaluate, settings. Everything is inside; it opens from disk.
"""

EVALUATE = """\
splat-esd evaluate RUN... [classifier=FOLDER] [clip=FOLDER]

Renders 24 views around each run's splat, prints a table and writes evaluation.json into the run.

  free, faces, arc    Janus: a face is two or more neighbouring views judged to be taken within 60
                      degrees of the front; free means exactly one, over at most 180 degrees, or
                      an object that looks alike from all sides
  mirrored            the sides come in the wrong order: the body stands backwards, and its face is
                      painted on its back
  right               what the views from the front show of what was asked for
  IQ, IV, IV-IQ       inception quality (lower is sharper), variety (higher is more varied), and
                      what view and class tell of each other, in nats
  PSNR, SSIM          beside the real thing, turned so that both agree best
  CLIP                100 times the mean cosine of views and prompt

Runs of the zoo prior are judged by the zoo's judge. For others, and for CLIP:
  classifier=FOLDER   an image classifier in transformers' layout; gives IQ and IV
  clip=FOLDER         a CLIP in transformers' layout
"""

STUDY = """\
splat-esd study FILE_OR_NAME [KEY=VALUE...]

  splat-esd study janus                      the file conf/experiment/janus.yaml
  splat-esd study janus seeds=2 steps=50 out=studies/look    a first look
  splat-esd study mine.yaml processes=4

Makes every prompt with every method and every seed, each in a folder of its own
(OUT/PROMPT/METHOD/sSEED), evaluates them, and ends in report.html, sheets.png, methods.svg and
results.json in OUT. What is there is not made again, what was stopped goes on, what fails stops
nothing else: give the same command again. What a run says is in its log.txt.

  prompts=[...]        what is made
  methods              in the file: a name, and the settings that set it apart
  seeds=8              how many, from 0 on; or a list
  common               in the file: settings of all runs. All other KEY=VALUE are added to them;
                       what a method sets itself wins
  out=FOLDER           studies/NAME if left out
  processes=null       runs at once; null: as many as cores and memory allow, one with a GPU
  launcher=joblib      processes of this machine; submitit: jobs of a Slurm cluster
  submitit.KEY=VALUE   cluster (slurm | local) and what submitit's AutoExecutor takes:
                       gpus_per_node=1, timeout_min=120, slurm_partition=gpu, ...
  classifier=FOLDER    for inception scores of other priors than the zoo's; clip=FOLDER: a CLIP
"""

TOY = """\
splat-esd toy [KEY=VALUE...]

SDS, VSD and ESD in two dimensions, where all scores are known: how much of a Gaussian's variance
each keeps, and what the views around an object show whose prior prefers the front. Takes about
half a minute; writes toy.json and toy.png.

  out=toy             folder
  seed=0              of the noise
  lambdas=[0,0.25,0.5,0.75,1]    of ESD; 0 is VSD, and SDS comes in any case
  peaks=[0.25,0.5,1,2,4,8]       how much the prior prefers the front
  steps=null          of each descent; null takes as many as the numbers need
"""

DOCTOR = """\
splat-esd doctor

Tells what this machine can run, and what is missing for the rest. Uses no network.
"""

BENCH = """\
splat-esd bench raster [KEY=VALUE...]

Times the CPU rasteriser on seeded scenes, against PyTorch and against what the processor can do.
Takes about five minutes; leave the machine alone meanwhile.

  quick=true      seconds: shows that it works, and says little
  only=table      one section: table | costs | curve | busy; all if left out
  threads=1       of table, costs and curve; more than one are timed by the wall clock
  out=FILE.json   where to write every figure

splat-esd bench mesh [RUN_OR_PLY ...] [KEY=VALUE...]

Makes a mesh of every splat named and of three toys whose true surface is known; prints how like
the splat each is, how far from the truth, and what it cost. About twenty seconds each.

  toys=false      leave out the toys
  mesh.KEY=VALUE  as for export
  out=FILE.json   where to write every figure
"""

ZOO = """\
splat-esd zoo train [KEY=VALUE...]
splat-esd zoo judge [KEY=VALUE...]
splat-esd zoo exam [KEY=VALUE...]

train: trains the small built-in prior again, from its toys.
judge: trains the network that tells what a picture shows; metrics ask it, generation never does.
exam: asks the judge about what the prior draws; report, contact sheet.
The first two go on where they were stopped.

  out=FOLDER          zoo-prior, judge or exam if left out
  threads, seed
  train: vae_minutes=90 unet_minutes=180 photos=40000 batch=48
         front=0.7 sides=0.2    share of the photos taken from there; 0 and 0 for no bias
         start=FOLDER           train this prior on; its autoencoder is kept
  judge: minutes=40 photos=24000 batch=64 processes=1
  exam:  prior=FOLDER captions=50 samples=8 steps=25 scale=3
"""

HELP = {
    "generate": GENERATE,
    "export": EXPORT,
    "view": VIEW,
    "compare": COMPARE,
    "evaluate": EVALUATE,
    "study": STUDY,
    "toy": TOY,
    "doctor": DOCTOR,
    "bench": BENCH,
    "zoo": ZOO,
}
