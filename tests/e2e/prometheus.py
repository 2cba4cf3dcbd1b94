"""A real Prometheus, from Debian's package: its server, which scrapes and judges, and promtool, which checks rules."""

import json
import subprocess
import urllib.parse
import urllib.request

import debian
from harness import free_port, wait_until


def promtool(*arguments):
    """Exit code, and what it says."""
    done = subprocess.run([debian.program("prometheus", "promtool"), *map(str, arguments)], capture_output=True, text=True, timeout=60)
    return done.returncode, done.stdout + done.stderr


class Prometheus:
    """Runs from `with` to its end, with a configuration file of the caller's."""

    def __init__(self, config_file, folder):
        self.port, self.folder = free_port(), folder
        folder.mkdir()
        self.command = [
            debian.program("prometheus", "prometheus"),
            f"--config.file={config_file}",
            f"--storage.tsdb.path={folder / 'data'}",
            f"--web.listen-address=127.0.0.1:{self.port}",
            "--log.level=warn",
        ]

    def __enter__(self):
        with open(self.folder / "log", "wb") as log:
            self.process = subprocess.Popen(self.command, cwd=self.folder, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        wait_until(self.is_ready, 20, "Prometheus to be ready")
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()

    def is_ready(self):
        assert self.process.poll() is None, (self.folder / "log").read_text()
        try:
            return self.get("/-/ready").status == 200
        except OSError:
            return False

    def get(self, path, **parameters):
        return urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}?{urllib.parse.urlencode(parameters)}", timeout=10)

    def api(self, what, **parameters):
        answer = json.load(self.get(f"/api/v1/{what}", **parameters))
        assert answer["status"] == "success", answer
        return answer["data"]

    def query(self, expression):
        """The series of an instant vector: each its labels and its value."""
        found = self.api("query", query=expression)
        assert found["resultType"] == "vector", (expression, found)
        return [(series["metric"], float(series["value"][1])) for series in found["result"]]

    def alerts(self):
        """Those that fire now: each with its labels and annotations."""
        return [alert for alert in self.api("alerts")["alerts"] if alert["state"] == "firing"]

    def fired(self):
        """Those that fire or have fired: name and instance, None where there is none."""
        series = self.query('last_over_time(ALERTS{alertstate="firing"}[1h])')
        return {(labels["alertname"], labels.get("instance")) for labels, _ in series}

    def rules(self):
        return [rule for group in self.api("rules")["groups"] for rule in group["rules"]]
