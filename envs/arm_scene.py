"""The arm on its table as a MuJoCo spec: WidowX 250s kinematics from primitive shapes, no mesh.

What never changes is MJCF text, which shows a kinematic tree best; tasks add their bodies to the
parsed `MjSpec` (see `props`). MjSpec and not dm_control's mjcf: it is part of MuJoCo itself, so it
knows every attribute of the version that is installed, compiles without writing XML, and a task
needs no second package whose releases lag behind MuJoCo's.

The numbers that decide whether a grasp holds (elliptic cones, impratio, pad friction and solref,
gripper force, default solver iterations) were measured: lowering the solver iterations, a common
edit for speed, makes grasps fail and saves nothing.
"""

# mujoco is a compiled module without stubs.
# pyright: reportAttributeAccessIssue=false, reportUnknownParameterType=false

import mujoco

FINGER_TRAVEL_M = 0.037
ARM_JOINTS = ("waist", "shoulder", "elbow", "forearm_roll", "wrist_angle", "wrist_rotate")
CAMERAS = ("front", "wrist")
PADS = ("left_pad", "right_pad")
ARM_ROOT, GRIPPER = "base", "gripper"  # bodies
TIMESTEP_S = 0.004


def arm_scene() -> mujoco.MjSpec:
    """The arm on an empty table, for a task to put its objects on."""
    return mujoco.MjSpec.from_string(_scene_xml())


def _scene_xml() -> str:
    actuators = "".join(
        f'<position class="arm" name="{joint}" joint="{joint}"/>' for joint in ARM_JOINTS
    )
    return f"""<mujoco model="loopdit-arm">
  <compiler angle="radian" autolimits="true"/>
  <option timestep="{TIMESTEP_S}" integrator="implicitfast" cone="elliptic" impratio="10"/>
  <visual>
    <global offwidth="1280" offheight="960"/>
    <quality offsamples="0" numslices="16" numstacks="8"/>
    <headlight ambient=".35 .35 .35" diffuse=".4 .4 .4" specular="0 0 0"/>
    <map znear=".02" zfar="20"/>
  </visual>
  <asset>
    <texture name="sky" type="skybox" builtin="flat" rgb1=".75 .8 .86" width="8" height="8"/>
    <material name="table" rgba=".6 .48 .36 1" reflectance="0"/>
    <material name="dark" rgba=".2 .21 .24 1" specular=".2"/>
  </asset>
  <default>
    <geom condim="3" friction="0.9 0.01 0.0005" solref="0.01 1"/>
    <default class="arm">
      <joint axis="0 1 0" damping="1.5" armature="0.1" frictionloss="0.05"/>
      <geom material="dark" contype="0" conaffinity="0"/>
      <position kp="150" dampratio="1" forcerange="-35 35"/>
    </default>
    <default class="pad">
      <geom condim="4" friction="1.6 0.05 0.001" solref="0.01 1" solimp="0.95 0.99 0.001"
            rgba=".3 .3 .32 1" mass="0.004" priority="1"/>
    </default>
    <default class="object">
      <geom condim="4" friction="1.0 0.02 0.0005" solref="0.01 1" solimp="0.95 0.99 0.001"/>
    </default>
  </default>
  <worldbody>
    <light pos="0.1 -0.6 1.4" dir=".1 .5 -1" diffuse=".55 .55 .55" castshadow="false"/>
    <geom name="table" type="plane" size="1.2 1.2 .1" material="table"/>
    <camera name="front" pos="0.68 -0.30 0.46" mode="targetbody" target="look" fovy="40"/>
    <body name="look" pos="0.24 0 0.075"/>
    {_ARM}
  </worldbody>
  <equality>
    <joint joint1="right" joint2="left" polycoef="0 1 0 0 0" solref="0.01 1"/>
  </equality>
  <actuator>
    {actuators}
    <position name="grip" joint="left" kp="600" kv="20" forcerange="-20 20"
              ctrlrange="0 {FINGER_TRAVEL_M}"/>
  </actuator>
</mujoco>"""


def _finger(name: str, side: str, axis: str) -> str:
    return f"""
    <body name="{name}" pos="0.066 0 0" gravcomp="1">
      <joint name="{name}" type="slide" axis="{axis}" range="0 {FINGER_TRAVEL_M}" damping="5"
             armature="0.05"/>
      <geom type="box" size="0.024 0.005 0.009" pos="0.022 {side}0.005 0" mass="0.012"/>
      <geom name="{name}_pad" class="pad" type="box" size="0.018 0.002 0.010"
            pos="0.032 {side}0.001 0"/>
    </body>"""


# Only the pads, the objects and the table collide: the arm's own links never touch in these tasks,
# and gravity compensation stands in for the real arm's controller.
_ARM = f"""
<body name="base" childclass="arm" gravcomp="1">
  <geom type="cylinder" size="0.055 0.036" pos="0 0 0.036" mass="0.54"/>
  <body name="shoulder_link" pos="0 0 0.072" gravcomp="1">
    <joint name="waist" axis="0 0 1" range="-3.1 3.1"/>
    <geom type="cylinder" size="0.04 0.028" pos="0 0 0.02" mass="0.48"/>
    <body name="upper_arm" pos="0 0 0.03865" gravcomp="1">
      <joint name="shoulder" range="-1.88 1.98"/>
      <geom type="capsule" fromto="0 0 0 0 0 0.25" size="0.026" mass="0.33"/>
      <geom type="capsule" fromto="0 0 0.25 0.04975 0 0.25" size="0.024" mass="0.1"/>
      <body name="forearm" pos="0.04975 0 0.25" gravcomp="1">
        <joint name="elbow" range="-2.14 1.60"/>
        <geom type="capsule" fromto="0 0 0 0.165 0 0" size="0.022" mass="0.23"/>
        <body name="forearm2" pos="0.175 0 0" gravcomp="1">
          <joint name="forearm_roll" axis="1 0 0" range="-3.1 3.1"/>
          <geom type="capsule" fromto="0 0 0 0.07 0 0" size="0.02" mass="0.22"/>
          <body name="wrist" pos="0.075 0 0" gravcomp="1">
            <joint name="wrist_angle" range="-1.74 2.14"/>
            <geom type="capsule" fromto="0 0 0 0.05 0 0" size="0.018" mass="0.085"/>
            <body name="gripper" pos="0.065 0 0" gravcomp="1">
              <joint name="wrist_rotate" axis="1 0 0" range="-3.1 3.1"/>
              <geom type="box" size="0.03 0.03 0.02" pos="0.01 0 0" mass="0.11"/>
              <geom type="box" size="0.008 0.05 0.012" pos="0.048 0 0" mass="0.02"/>
              <camera name="wrist" pos="-0.045 0 0.075" xyaxes="0 -1 0 0.26 0 0.966" fovy="72"/>
              <site name="end_effector" pos="0.108 0 0" size="0.004" rgba="1 1 0 0"/>
              {_finger("left", "", "0 1 0")}
              {_finger("right", "-", "0 -1 0")}
            </body>
          </body>
        </body>
      </body>
    </body>
  </body>
</body>"""
