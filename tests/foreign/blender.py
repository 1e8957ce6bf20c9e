"""Opens a mesh in Blender, prints what came in, and draws it: blender.py BPY GLB PNG JSON."""

import json
import math
import sys
from typing import Any

sys.path.append(sys.argv[1])  # behind what is installed
import bpy  # type: ignore[import-not-found]
from mathutils import Vector  # type: ignore[import-not-found]

asked = json.loads(sys.argv[4])
bpy.ops.wm.read_factory_settings(use_empty=True)
bpy.ops.import_scene.gltf(filepath=sys.argv[2])
scene: Any = bpy.context.scene
(mesh,) = (thing for thing in scene.objects if thing.type == "MESH")
(material,) = mesh.data.materials
corners = [mesh.matrix_world @ Vector(corner) for corner in mesh.bound_box]
textures = [node for node in material.node_tree.nodes if node.type == "TEX_IMAGE"]
found = {
    "name": mesh.name,
    "faces": len(mesh.data.polygons),
    "smooth": all(face.use_smooth for face in mesh.data.polygons),
    "texture": [list(node.image.size) for node in textures],
    "low": [min(corner[i] for corner in corners) for i in range(3)],
    "high": [max(corner[i] for corner in corners) for i in range(3)],
}

# Light from everywhere alike, so that the picture is the texture but for folds.
scene.world = bpy.data.worlds.new("white")
scene.world.use_nodes = True
scene.world.node_tree.nodes["Background"].inputs[0].default_value = (1, 1, 1, 1)
camera = bpy.data.objects.new("camera", bpy.data.cameras.new("camera"))
scene.collection.objects.link(camera)
scene.camera, camera.data.angle = camera, math.radians(asked["fovy"])
across = asked["distance"] * math.cos(asked["elevation"])  # z is up here, and the front at -y
up = asked["distance"] * math.sin(asked["elevation"])
turn = asked["azimuth"]
camera.location = (across * math.sin(turn), -across * math.cos(turn), up)
camera.rotation_euler = (-camera.location).to_track_quat("-Z", "Y").to_euler()
scene.render.engine, scene.cycles.device, scene.cycles.samples = "CYCLES", "CPU", 16
scene.cycles.use_denoising = False  # it changes the ground, too
scene.render.resolution_x = scene.render.resolution_y = asked["size"]
scene.render.threads_mode, scene.render.threads = "FIXED", 1
scene.view_settings.view_transform = "Standard"
scene.render.filepath = sys.argv[3]
bpy.ops.render.render(write_still=True)
sys.stdout.write(f"\n{json.dumps(found)}\n")
