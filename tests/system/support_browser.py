"""A page in headless Chromium, looked at over its debugging pipe: JSON messages, each ended by a NUL byte."""
import base64
import json
import os
import select
import shutil
import subprocess
import time

PATH = shutil.which("chromium")


class Browser:
    """One page. `complaints`: what it wrote to the console and what was thrown in it."""

    def __init__(self, url, folder, patience, size=(1280, 900)):
        self.patience, self.last_id, self.unread, self.complaints = patience, 0, b"", []
        ours, browsers = os.pipe(), os.pipe()  # it reads descriptor 3 and writes 4
        command = [PATH, "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--remote-debugging-pipe",
                   f"--user-data-dir={folder}", f"--window-size={size[0]},{size[1]}", "about:blank"]
        self.process = subprocess.Popen(
            ["bash", "-c", f'exec "$@" 3<&{ours[0]} 4>&{browsers[1]}', "bash", *command],
            pass_fds=(ours[0], browsers[1]), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        os.close(ours[0])
        os.close(browsers[1])
        self.to, self.source = ours[1], browsers[0]
        self.session = None
        target = self.ask("Target.createTarget", url="about:blank")
        self.session = self.ask("Target.attachToTarget", targetId=target["targetId"], flatten=True)["sessionId"]
        for domain in ("Runtime", "Log", "Page"):
            self.ask(domain + ".enable")
        self.ask("Page.navigate", url=url)
        self.until(f"location.href === {json.dumps(url)} && document.readyState === 'complete'", "the page is loaded")

    def receive(self):
        end = time.monotonic() + self.patience
        while b"\0" not in self.unread:
            assert select.select([self.source], [], [], max(0, end - time.monotonic()))[0], "the browser says nothing"
            more = os.read(self.source, 1 << 16)
            assert more, "the browser has ended"
            self.unread += more
        message, self.unread = self.unread.split(b"\0", 1)
        return json.loads(message)

    def ask(self, method, **parameters):
        self.last_id += 1
        question = {"id": self.last_id, "method": method, "params": parameters}
        if self.session:
            question["sessionId"] = self.session
        os.write(self.to, json.dumps(question).encode() + b"\0")
        while (message := self.receive()).get("id") != self.last_id:
            if message.get("method") in ("Runtime.consoleAPICalled", "Runtime.exceptionThrown", "Log.entryAdded"):
                # An answer that comes late on a busy machine is not the page's doing.
                if message["params"].get("entry", {}).get("source") != "network":
                    self.complaints.append(message["params"])
        assert "error" not in message, message
        return message["result"]

    def run(self, script):
        """What the script's last expression is."""
        answer = self.ask("Runtime.evaluate", expression=script, returnByValue=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def until(self, script, what):
        end = time.monotonic() + self.patience
        while not (value := self.run(script)):
            assert time.monotonic() < end, f"waited in vain: {what}: {self.run('document.body.innerText')}"
            time.sleep(0.05)  # between looks; the bound is above
        return value

    def screenshot(self, path):
        with open(path, "wb") as file:
            file.write(base64.b64decode(self.ask("Page.captureScreenshot", captureBeyondViewport=True)["data"]))

    def close(self):
        os.close(self.to)
        os.close(self.source)
        self.process.kill()
        self.process.wait()
