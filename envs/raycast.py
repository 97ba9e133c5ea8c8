"""The cameras without OpenGL: one ray for each pixel, shaded as MuJoCo's own renderer would.

The last resort where no OpenGL renders: slower by about a factor of 20, and its pixels are near
those of OpenGL but not the same. What is visible, its colours and the lights come from MuJoCo's
abstract scene (which needs no OpenGL), so geom groups, materials and changes made while running
hold for both. One ray for each pixel: hard edges, like those of OpenGL without multisampling.

Not shown: sites, tendons and other decoration, shadows and reflections. A texture is its mean
colour. Behind a transparent geom is what is behind the whole body that it belongs to.
"""

# mujoco is a compiled module without stubs.
# pyright: reportAttributeAccessIssue=false, reportUnknownParameterType=false

import math
from typing import Any

import mujoco
import numpy as np

_MAX_SCENE_GEOMS = 10_000
_SEE_THROUGH = 0.999  # an alpha below this shows what is behind
_SHININESS = 128.0  # the exponent of a material whose shininess is 1


class RayCameras:
    """Renders cameras of one model by rays; stands in for `cameras.CameraRig`."""

    def __init__(self, model: mujoco.MjModel) -> None:
        self._model = model
        self._scene = mujoco.MjvScene(model, _MAX_SCENE_GEOMS)
        self._option = mujoco.MjvOption()
        self._camera = mujoco.MjvCamera()
        self._camera.type = mujoco.mjtCamera.mjCAMERA_FIXED
        self._background = _sky(model)

    def frame(self, data: mujoco.MjData, camera: str, size: int) -> np.ndarray:
        """One RGB frame (size, size, 3) uint8."""
        model, index = self._model, self._model.camera(camera).id
        self._camera.fixedcamid = index
        everything = mujoco.mjtCatBit.mjCAT_ALL
        mujoco.mjv_updateScene(
            model, data, self._option, None, self._camera, everything, self._scene
        )
        looks = _looks(model, self._scene)
        eye = data.cam_xpos[index]
        rays = _rays(size, math.radians(model.cam_fovy[index]))
        rays = rays @ data.cam_xmat[index].reshape(3, 3).T  # (pixels, 3), world, unit length
        geoms, colours = self._cast(data, eye, rays, looks, hidden_body=-1)
        # Once more for what is behind transparent geoms, one body at a time.
        see_through = (geoms >= 0) & (looks["rgba"][geoms, 3] < _SEE_THROUGH)
        bodies = np.where(see_through, model.geom_bodyid[geoms], -1)
        for body in np.unique(bodies[see_through]):
            pixels = np.flatnonzero(bodies == body)
            _, behind = self._cast(data, eye, rays[pixels], looks, hidden_body=int(body))
            # Twice, because OpenGL draws the far side of a transparent geom as well.
            alpha = 1 - (1 - looks["rgba"][geoms[pixels], 3, None]) ** 2
            colours[pixels] = alpha * colours[pixels] + (1 - alpha) * behind
        return np.rint(np.clip(colours, 0, 1) * 255).astype(np.uint8).reshape(size, size, 3)

    def close(self) -> None:
        """Nothing to free: there is no OpenGL context."""

    def _cast(
        self,
        data: mujoco.MjData,
        eye: np.ndarray,
        rays: np.ndarray,
        looks: dict[str, np.ndarray],
        hidden_body: int,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Rays (pixels, 3) from `eye` -> the geoms hit (pixels,), -1 for none; colours
        (pixels, 3), 0 to 1. Nothing of the body `hidden_body` is seen."""
        count, model = len(rays), self._model
        geoms = np.full(count, -1, np.int32)
        distances, normals = np.zeros(count), np.zeros(count * 3)
        mujoco.mj_multiRay(
            model,
            data,
            eye,
            rays.ravel(),
            self._option.geomgroup,
            True,
            hidden_body,
            geoms,
            distances,
            normals,
            count,
            model.vis.map.zfar * model.stat.extent,
        )
        colours = np.tile(self._background, (count, 1))
        hit = np.flatnonzero(geoms >= 0)
        seen = {key: values[geoms[hit]] for key, values in looks.items()}
        points = eye + rays[hit] * distances[hit, None]
        colours[hit] = _shade(
            self._scene, seen, points, normals.reshape(-1, 3)[hit], to_eye=-rays[hit]
        )
        return geoms, colours


def _rays(size: int, fovy_rad: float) -> np.ndarray:
    """Directions (size * size, 3) through the pixel centres in the camera's frame, which looks
    along -z with y up."""
    across = ((np.arange(size) + 0.5) / size * 2 - 1) * math.tan(fovy_rad / 2)
    x, y = np.meshgrid(across, -across)
    rays = np.stack([x, y, np.full_like(x, -1.0)], axis=-1).reshape(-1, 3)
    return rays / np.linalg.norm(rays, axis=1, keepdims=True)


def _looks(model: mujoco.MjModel, scene: mujoco.MjvScene) -> dict[str, np.ndarray]:
    """By geom id: `rgba` (geoms, 4), `emission`, `specular`, `exponent` (geoms,)."""
    rgba = np.zeros((model.ngeom, 4))
    rest = np.zeros((model.ngeom, 3))
    for drawn in scene.geoms[: scene.ngeom]:
        if drawn.objtype == mujoco.mjtObj.mjOBJ_GEOM:
            rgba[drawn.objid] = drawn.rgba
            # OpenGL lights the vertices of a plane, far apart: its highlights fall between them.
            specular = 0.0 if drawn.type == mujoco.mjtGeom.mjGEOM_PLANE else drawn.specular
            rest[drawn.objid] = drawn.emission, specular, drawn.shininess * _SHININESS
            if drawn.matid >= 0:
                rgba[drawn.objid, :3] *= _texture(model, drawn.matid)
    return {"rgba": rgba, "emission": rest[:, 0], "specular": rest[:, 1], "exponent": rest[:, 2]}


def _texture(model: mujoco.MjModel, material: int) -> np.ndarray:
    """Mean colour (3,), 0 to 1, of a material's texture; white without one."""
    texture = int(model.mat_texid[material, mujoco.mjtTextureRole.mjTEXROLE_RGB])
    return np.ones(3) if texture < 0 else _mean_colour(model, texture)


def _sky(model: mujoco.MjModel) -> np.ndarray:
    """Colour (3,), 0 to 1, of the sky box, black without one."""
    skies = np.flatnonzero(model.tex_type == mujoco.mjtTexture.mjTEXTURE_SKYBOX)
    return _mean_colour(model, int(skies[0])) if len(skies) else np.zeros(3)


def _mean_colour(model: mujoco.MjModel, texture: int) -> np.ndarray:
    start, channels = int(model.tex_adr[texture]), int(model.tex_nchannel[texture])
    pixels = int(model.tex_height[texture]) * int(model.tex_width[texture])
    data = model.tex_data[start : start + pixels * channels].reshape(pixels, channels)
    return data[:, :3].mean(axis=0) / 255


def _shade(
    scene: mujoco.MjvScene,
    seen: dict[str, np.ndarray],
    points: np.ndarray,
    normals: np.ndarray,
    to_eye: np.ndarray,
) -> np.ndarray:
    """The lighting equation of OpenGL 1.x at points (n, 3) -> colours (n, 3).

    Its sum over the lights: ambient, diffuse by the angle to the light (Lambert), specular by the
    angle between the normal and the half way vector (Blinn).
    """
    diffuse = np.repeat(seen["emission"][:, None], 3, axis=1)
    specular = np.zeros_like(points)
    for light in scene.lights[: scene.nlight]:
        to_light, strength = _towards(light, points)
        facing = np.maximum(np.sum(normals * to_light, axis=1), 0.0)
        diffuse += strength[:, None] * (light.ambient + facing[:, None] * light.diffuse)
        if not light.specular.any():
            continue
        half = to_light + to_eye
        half /= np.linalg.norm(half, axis=1, keepdims=True)
        shine = np.maximum(np.sum(normals * half, axis=1), 0.0) ** seen["exponent"]
        shine *= seen["specular"] * strength * (facing > 0)
        specular += shine[:, None] * light.specular
    return seen["rgba"][:, :3] * diffuse + specular


def _towards(light: Any, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Unit vectors (n, 3) from points to a light, and how strong it is there (n,)."""
    direction = np.array(light.dir, float)
    if light.headlight or light.type == mujoco.mjtLightType.mjLIGHT_DIRECTIONAL:
        return np.broadcast_to(-direction, points.shape), np.ones(len(points))
    to_light = np.array(light.pos, float) - points
    distance = np.linalg.norm(to_light, axis=1)
    to_light /= distance[:, None]
    constant, linear, square = map(float, light.attenuation)
    strength = 1 / (constant + linear * distance + square * distance**2)
    if light.type == mujoco.mjtLightType.mjLIGHT_SPOT:
        cosine = np.maximum(-to_light @ direction, 0.0)
        inside = cosine >= math.cos(math.radians(light.cutoff))
        strength *= np.where(inside, cosine**light.exponent, 0.0)
    return to_light, strength
