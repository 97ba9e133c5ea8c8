"""MuJoCo tasks as Gymnasium environments with 7-D actions, and their scripted experts."""
