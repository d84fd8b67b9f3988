"""The commands of ``wm``, one file a group. They say what can be typed; the modules beside this folder do it.

A function may import only what is light before it runs, so that ``wm --help`` does not wait for torch and MLflow.
"""
