// Reads a .spz with Adobe's build of the reference library and prints what it holds, upright in
// the axes of three.js:  node read_spz.mjs FILE
import { readFile } from "node:fs/promises";
import createSpzModule from "@adobe/spz";

const spz = await createSpzModule();
const cloud = spz.loadSpzFromBuffer(new Uint8Array(await readFile(process.argv[2])), { to: spz.CoordinateSystem.RUB });
const arrays = ["positions", "scales", "rotations", "alphas", "colors", "sh"];
const read = Object.fromEntries(arrays.map((name) => [name, Array.from(cloud[name])]));
console.log(JSON.stringify({ numPoints: cloud.numPoints, shDegree: cloud.shDegree, ...read }));
