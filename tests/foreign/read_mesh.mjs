// Reads a mesh with Assimp and prints what it finds:  node read_mesh.mjs FILE
import { readFile } from "node:fs/promises";
import { basename } from "node:path";
import assimpjs from "assimpjs";

const assimp = await assimpjs();
const files = new assimp.FileList();
for (const path of process.argv.slice(2)) files.AddFile(basename(path), new Uint8Array(await readFile(path)));
const result = assimp.ConvertFileList(files, "assjson");
if (!result.IsSuccess()) throw new Error(result.GetErrorCode());
const scene = JSON.parse(new TextDecoder().decode(result.GetFile(0).GetContent()));
console.log(JSON.stringify(scene.meshes.map((mesh) => ({
  vertices: mesh.vertices.length / 3,
  faces: mesh.faces.length,
  normals: (mesh.normals ?? []).length / 3,
  texcoords: (mesh.texturecoords?.[0] ?? []).length,
  low: [0, 1, 2].map((a) => mesh.vertices.filter((_, i) => i % 3 === a).reduce((x, y) => Math.min(x, y))),
  high: [0, 1, 2].map((a) => mesh.vertices.filter((_, i) => i % 3 === a).reduce((x, y) => Math.max(x, y))),
}))));
