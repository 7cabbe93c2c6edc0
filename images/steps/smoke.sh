#!/usr/bin/env bash
# Whether a pod would find what it needs: what the steps import is there, the use case loads, and a step runs as Argo runs it.
# It is the image's default command and the last thing its build does; PYTHON names another interpreter.
set -euo pipefail

python=${PYTHON:-python}
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

# What a step imports only when it runs (Feast, MLflow and the like) is imported here, too: each import in its module is run.
"$python" - <<'PY'
import ast
import pkgutil
from importlib.util import find_spec
from pathlib import Path

import steps
from lockstep.settings import Settings
from lockstep.views import load_use_case

use_case = load_use_case(Settings.load().use_case)
print(f"{use_case.project}: {', '.join(view.name for view in use_case.views)}")
modules = [module.name for module in pkgutil.iter_modules(steps.__path__, "steps.")]
for module in modules:
    for node in ast.walk(ast.parse(Path(find_spec(module).origin).read_text())):
        if isinstance(node, ast.Import | ast.ImportFrom):
            exec(ast.unparse(node), {})
print(f"steps: {len(modules)} modules")
PY

printf '[{"name": "views", "value": "all"}]' > "$scratch/inputs"
hera__outputs_directory=$scratch/outputs \
    "$python" -m hera.workflows.runner -e steps.list_views:list_views "$scratch/inputs" > /dev/null
printf 'list-views: %s\n' "$(cat "$scratch/outputs/parameters/names")"
