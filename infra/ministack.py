"""Deploys the template by `sam deploy` to MiniStack, with the functions' own binaries as its processes, and sends through it.

It shows that:
- callers are admitted or refused by the routes as they are declared;
- the template's roles allow what the functions do, since MiniStack checks them;
- a broadcast passes through API, queue and schedule, and each contact gets one message at the sandbox; a scheduled broadcast is
  sent when it is due;
- nothing is sent while sending is switched off, jobs are halted while the switch is at `halt`, a deployment changes neither, and all of it
  continues with `on`;
- an older version works on newer tables;
- a queue message that is no wake-up ends in the dead-letter queue;
- the functions' metrics are in their logs;
- a second stack, with the other choices of parameters, fits beside the first, its tables outlive it, and a new stack imports them;
- the runbook's steps work: drain, stop by hand, rotate a token, roll back, restore tables without sending anything again, delete
  a person's data.

It does not show what MiniStack does differently from AWS:
- It listens without TLS, so the queues' policy, which requires TLS, is removed from the deployed template.
- It has no alarms of several metrics, so those about throttling are deployed with one. It ignores reserved concurrency and
  `RecursiveLoop` in a template, and rolls back a protected table. Gradual rollouts and budgets are not tried.
- It has neither throttling at the API nor actions of alarms; Lambda's logs and metrics are kept, not billed.
- The visibility time-out is a property of its queue, so it is shortened for the message that ends in the dead-letter queue. On
  AWS that takes 5 × 150 s.
- SecureStrings are not encrypted. The CORS origin of the template is not admitted.
- There is no JWT issuer, so no valid token is tried, only that a call without one is refused.
"""

import argparse
import json
import os
import re
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.parse
import urllib.request
import zipfile
from collections import Counter
from datetime import datetime, timedelta, timezone
from pathlib import Path

import boto3
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

ROOT = Path(__file__).resolve().parent.parent
STACK = "oncecast"
REGION = "eu-central-1"
FUNCTIONS = ("send", "process-job", "scheduled")
PAGES = ("page-1", "page-2")
# The runbook's steps are among them.
STEPS = (
    "webhooks broadcasts schedule drain stop_by_hand halt rotate roll_back dead_letter restore forget another_stack logs".split()
)
SERVICES = "apigateway,cloudformation,cloudwatch,dynamodb,iam,kms,lambda,logs,s3,scheduler,sns,sqs,ssm,sts"


class Failed(Exception):
    """A check that failed."""


def check(condition, what, found=""):
    if not condition:
        raise Failed(f"{what}: {found}" if found != "" else what)
    print(f"  ok  {what}")


def say(what):
    print(f"\n-- {what}")


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def until(what, seconds, look):
    """Calls `look` every half second until its result is true, and returns that."""
    end = time.monotonic() + seconds
    while True:
        seen = look()
        if seen:
            return seen
        if time.monotonic() > end:
            raise Failed(f"{what}: not within {seconds} s")
        time.sleep(0.5)


def http(method, url, body=None, headers=None):
    """Returns the status and body of an answer, whatever the status."""
    data = body.encode() if isinstance(body, str) else body
    request = urllib.request.Request(url, data, headers or {}, method=method)
    try:
        with urllib.request.urlopen(request, timeout=40) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


class Processes:
    """The processes started by this run; `stop` ends them."""

    def __init__(self, directory):
        self.directory = directory
        self.started = []

    def start(self, name, command, env):
        log = (self.directory / f"{name}.log").open("w")
        process = subprocess.Popen(
            command, env=env, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
        )
        self.started.append(process)
        return process

    def log(self, name):
        return (self.directory / f"{name}.log").read_text(errors="replace")

    def stop(self):
        for process in reversed(self.started):
            # Each process leads a group of its own, which includes its functions.
            for number, wait in ((signal.SIGTERM, 12), (signal.SIGKILL, 5)):
                try:
                    os.killpg(process.pid, number)
                    process.wait(wait)
                except (ProcessLookupError, subprocess.TimeoutExpired):
                    pass


class Sandbox:
    """The Messenger sandbox of a local stack, whose own API and functions stay idle."""

    def __init__(self, processes, directory, executable):
        self.tokens = {page: secrets.token_hex(16) for page in PAGES}
        self.known_tokens = list(self.tokens.values())
        self.app_secret = secrets.token_hex(16)
        self.verify_token = secrets.token_hex(16)
        files = {
            "tokens.json": json.dumps(self.tokens),
            "app-secret": self.app_secret,
            "verify-token": self.verify_token,
        }
        for name, text in files.items():
            path = directory / name
            path.touch(mode=0o600)
            path.write_text(text)
        env = os.environ | {
            "APP_SECRET": f"file:{directory}/app-secret",
            "WEBHOOK_VERIFY_TOKEN": f"file:{directory}/verify-token",
        }
        command = [executable, "up", "--port", "0", "--page-tokens", directory / "tokens.json"]
        processes.start("sandbox", command, env)
        shown = until(
            "the sandbox is ready",
            60,
            lambda: re.search(r"Sandbox\s+(http://\S+?)/v\d", processes.log("sandbox")),
        )
        self.url = shown[1]

    def control(self, method, path, body=None):
        headers = {"content-type": "application/json"}
        body = None if body is None else json.dumps(body)
        status, text = http(method, f"{self.url}/sandbox/{path}", body, headers)
        if status >= 300:
            raise Failed(f"sandbox {path}: {status} {text}")
        return json.loads(text) if text else None

    def received(self, text):
        """Returns the number of messages with this text that each contact got."""
        messages = self.control("GET", "messages")
        return Counter(
            message["contact_id"] for message in messages if text in json.dumps(message)
        )


class Cloud:
    """MiniStack, which checks each caller's signature and each role's permissions."""

    def __init__(self, processes, directory):
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.directory = directory
        # MiniStack's convention for the root user.
        keys = {"AWS_ACCESS_KEY_ID": "root", "AWS_SECRET_ACCESS_KEY": secrets.token_hex(20)}
        self.env = (
            {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
            | keys
            | {
                "AWS_DEFAULT_REGION": REGION,
                "AWS_ENDPOINT_URL": self.url,
                "AWS_EC2_METADATA_DISABLED": "true",
                "SAM_CLI_TELEMETRY": "0",
            }
        )
        own = {
            "AUTH": "true",
            "BIND_HOST": "127.0.0.1",
            "GATEWAY_PORT": str(self.port),
            "IOT_MTLS_ENABLED": "0",
            "MINISTACK_REGION": REGION,
            "SERVICES": SERVICES,
            "STATE_DIR": str(directory / "state"),
            "TMPDIR": str(directory),
        }
        processes.start("ministack", [Path(sys.executable).with_name("ministack")], self.env | own)
        health = f"{self.url}/_ministack/health"
        until("MiniStack is ready", 60, lambda: answers(health))
        self.session = boto3.Session(
            aws_access_key_id=keys["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=keys["AWS_SECRET_ACCESS_KEY"],
            region_name=REGION,
        )

    def client(self, service):
        return self.session.client(service, endpoint_url=self.url)

    def deploy(self, template, stack=STACK, **parameters):
        """Runs `sam deploy`, as the README does. Parameters that are not named keep their values."""
        command = [ROOT / "target/tools-sam/bin/sam", "deploy", "--template", template]
        command += ["--stack-name", stack, "--resolve-s3", "--capabilities", "CAPABILITY_IAM"]
        command += ["--no-confirm-changeset", "--no-progressbar", "--no-fail-on-empty-changeset"]
        command += ["--parameter-overrides"]
        command += [f"{name}={value}" for name, value in parameters.items()]
        done = subprocess.run(command, env=self.env, cwd=self.directory, text=True, capture_output=True)
        if done.returncode != 0:
            raise Failed(f"sam deploy: {done.stdout[-3000:]}{done.stderr[-3000:]}")
        stacks = self.client("cloudformation").describe_stacks(StackName=stack)["Stacks"]
        return {output["OutputKey"]: output["OutputValue"] for output in stacks[0]["Outputs"]}

    def user(self, name, *allowed):
        """Creates a caller of the API that may invoke these resources of it."""
        iam = self.client("iam")
        iam.create_user(UserName=name)
        if allowed:
            statement = {"Effect": "Allow", "Action": "execute-api:Invoke", "Resource": allowed}
            policy = {"Version": "2012-10-17", "Statement": [statement]}
            iam.put_user_policy(UserName=name, PolicyName="call", PolicyDocument=json.dumps(policy))
        key = iam.create_access_key(UserName=name)["AccessKey"]
        return Credentials(key["AccessKeyId"], key["SecretAccessKey"])


def answers(url):
    try:
        return http("GET", url)[0] == 200
    except OSError:
        return False


class Api:
    """The stack's HTTP API, addressed by path, since `API.execute-api.localhost` does not resolve on every machine."""

    def __init__(self, cloud, api_id):
        self.base = f"{cloud.url}/_aws/execute-api/{api_id}/$default"

    def call(self, caller, method, path, body=None, headers=None):
        url = f"{self.base}{path}"
        headers = dict(headers or {})
        data = None
        if body is not None:
            data = json.dumps(body)
            headers["content-type"] = "application/json"
        if caller:
            request = AWSRequest(method, url, data=data, headers=headers)
            SigV4Auth(caller, "execute-api", REGION).add_auth(request)
            headers = dict(request.headers)
        status, text = http(method, url, data, headers)
        try:
            return status, json.loads(text)
        except ValueError:
            return status, text


def debug_zips(directory):
    """Writes the zips that cargo-lambda would make, with debug binaries."""
    for function in FUNCTIONS:
        path = directory / function / "bootstrap.zip"
        path.parent.mkdir(parents=True)
        entry = zipfile.ZipInfo("bootstrap")
        entry.external_attr = 0o755 << 16
        binary = (ROOT / "target/debug" / function).read_bytes()
        with zipfile.ZipFile(path, "w") as zipped:
            zipped.writestr(entry, binary, zipfile.ZIP_DEFLATED, compresslevel=1)
    return directory


def template_for(directory, zips):
    """Writes the template with these zips, without the policy that requires TLS and sums of metrics, which MiniStack lacks."""
    text = (ROOT / "infra/template.yaml").read_text()
    text = text.replace("../target/lambda/", f"{zips}/")
    text, taken_out = re.subn(r"  QueuesPolicy:\n(?:    .*\n)+\n", "", text)
    single = ("Namespace: AWS/DynamoDB", "MetricName: ThrottledRequests", "Statistic: Sum", "Period: 60")
    single = "".join(f"      {line}\n" for line in single)
    text, simplified = re.subn(r"      Metrics:\n(?:        .*\n)+", single, text)
    if taken_out != 1 or simplified != 6 or text.count(f"{zips}/") != len(FUNCTIONS):
        raise Failed("the template has changed, and template_for() no longer fits it: adapt its patterns")
    path = directory / "template.yaml"
    path.write_text(text)
    return path


class Run:
    def __init__(self, cloud, sandbox, template):
        self.cloud, self.sandbox, self.template = cloud, sandbox, template

    def broadcast(self, text, contacts, **more):
        body = {"contact_ids": contacts, "message": {"text": text}} | more
        return self.api.call(self.caller, "POST", "/v1/broadcasts", body)

    def report(self, broadcast_id):
        status, report = self.api.call(self.caller, "GET", f"/v1/broadcasts/{broadcast_id}")
        if status != 200:
            raise Failed(f"GET of a broadcast: {status} {report}")
        return report

    def completed(self, broadcast_id, seconds):
        def look():
            report = self.report(broadcast_id)
            if report["status"] == "halted":
                raise Failed(f"halted: {report['jobs']}")
            return report if report["status"] == "completed" else None

        return until("the broadcast is completed", seconds, look)

    def check_one_each(self, text, contacts):
        received = self.sandbox.received(text)
        wrong = {id: count for id, count in received.items() if count != 1}
        missing = set(contacts) - set(received)
        check(
            not wrong and not missing and len(received) == len(set(contacts)),
            f"{len(set(contacts))} contacts got {text!r}, each once",
            f"more than one {wrong}, missing {sorted(missing)[:10]}",
        )

    def send_to_all(self, text, seconds=120):
        """Sends a broadcast to all contacts, checks that each got it once, and returns its report."""
        _, answer = self.broadcast(text, self.contacts)
        report = self.completed(answer["broadcast_id"], seconds)
        self.check_one_each(text, self.contacts)
        return report

    def deploy(self):
        say("sam deploy")
        ssm = self.cloud.client("ssm")
        named = {f"page-tokens/{page}": token for page, token in self.sandbox.tokens.items()}
        named |= {
            "app-secret": self.sandbox.app_secret,
            "webhook-verify-token": self.sandbox.verify_token,
        }
        for name, value in named.items():
            ssm.put_parameter(Name=f"/{STACK}/{name}", Value=value, Type="SecureString")
        begun = time.monotonic()
        outputs = self.cloud.deploy(
            self.template, Architecture="x86_64", GraphApiUrl=f"{self.sandbox.url}/v25.0"
        )
        check(outputs["ApiId"], f"deployed in {time.monotonic() - begun:.0f} s")
        self.outputs = outputs
        self.api = Api(self.cloud, outputs["ApiId"])

    def callers(self):
        say("who may call")
        arn = f"arn:aws:execute-api:{REGION}:*:{self.outputs['ApiId']}"
        self.caller = self.cloud.user("caller", f"{arn}/*/*/v1/*")
        reader = self.cloud.user("reader", f"{arn}/*/GET/v1/broadcasts*")
        stranger = self.cloud.user("stranger")
        for who, caller in (("an anonymous client", None), ("a user without a policy", stranger)):
            for method, path in (("GET", "/v1/health"), ("POST", "/v1/broadcasts"), ("GET", "/v1/contacts/1")):
                status, _ = self.api.call(caller, method, path)
                check(status == 403, f"{who} is refused {method} {path}", status)
        status, answer = self.api.call(self.caller, "GET", "/v1/health")
        check(status == 200, "a caller is admitted", f"{status} {answer}")
        status, answer = self.api.call(reader, "GET", "/v1/broadcasts")
        check(status == 200, "a reader may read", f"{status} {answer}")
        status, _ = self.api.call(reader, "PUT", "/v1/contacts", {"contacts": []})
        check(status == 403, "a reader may not write", status)
        status, _ = self.api.call(self.caller, "GET", "/v1/nothing")
        check(status == 404, "a path without a route is not found", status)

    def webhooks(self):
        say("Messenger's webhooks")
        path = "/v1/webhooks/messenger"

        def verify(token):
            query = {"hub.mode": "subscribe", "hub.challenge": "42", "hub.verify_token": token}
            return self.api.call(None, "GET", f"{path}?{urllib.parse.urlencode(query)}")

        status, answer = verify(self.sandbox.verify_token)
        check((status, answer) == (200, 42), "the verify token is accepted", f"{status} {answer}")
        check(verify("another")[0] == 403, "another token is refused")
        forged = {"x-hub-signature-256": f"sha256={'0' * 64}"}
        status, _ = self.api.call(None, "POST", path, {"object": "page", "entry": []}, forged)
        check(status == 403, "a forged signature is refused", status)
        subscription = {
            "url": f"{self.api.base}{path}",
            "app_secret": self.sandbox.app_secret,
            "verify_token": self.sandbox.verify_token,
        }
        self.sandbox.control("PUT", "subscription", subscription)
        check(True, "the sandbox has subscribed")

    def broadcasts(self):
        say("broadcasts")
        self.contacts = [f"{number}" for number in range(6001, 6121)]
        rows = [
            {"contact_id": id, "page_id": PAGES[number % 2], "first_name": f"No. {id}"}
            for number, id in enumerate(self.contacts)
        ]
        status, answer = self.api.call(self.caller, "PUT", "/v1/contacts", {"contacts": rows})
        check(status == 200 and answer["upserted"] == 120, "120 contacts on two Pages are imported", f"{status} {answer}")

        few = self.contacts[:10]
        status, answer = self.broadcast("inline", few)
        check(
            status == 200 and answer["status"] == "completed",
            "a small broadcast is answered with its outcome",
            f"{status} {answer}",
        )
        self.check_one_each("inline", few)

        status, answer = self.broadcast("queued", self.contacts + self.contacts[:30])
        check(
            status == 202 and answer["contacts"]["duplicates_removed"] == 30,
            "a larger one is accepted, with 30 repeated ids removed",
            f"{status} {answer}",
        )
        status, again = self.broadcast("queued", self.contacts + self.contacts[:30])
        check(
            again.get("broadcast_id") == answer["broadcast_id"],
            "a repeated request is answered with the same broadcast",
            f"{status} {again}",
        )
        report = self.completed(answer["broadcast_id"], 120)
        check(report["counters"]["sent"] == 120, "process-job completes it", report["counters"])
        self.check_one_each("queued", self.contacts)

    def schedule(self):
        say("the schedule")
        due = datetime.now(timezone.utc) + timedelta(seconds=65)
        status, answer = self.broadcast("scheduled", self.contacts, scheduled_at=due.isoformat(timespec="seconds"))
        check(status == 202 and answer["status"] == "scheduled", "a broadcast is scheduled in 65 s", f"{status} {answer}")
        until("it is due", 70, lambda: datetime.now(timezone.utc) >= due - timedelta(seconds=1))
        check(not self.sandbox.received("scheduled"), "nothing is sent before it is due")
        self.completed(answer["broadcast_id"], 150)
        self.check_one_each("scheduled", self.contacts)

    def switch(self, state):
        """Sets the switch for sending."""
        status, answer = self.api.call(self.caller, "PUT", "/v1/sending", {"state": state, "reason": "tried out"})
        check(status == 200 and answer["state"] == state, f"sending is switched {state}", f"{status} {answer}")

    def drain(self):
        say("sending is switched off, and on again")
        self.switch("off")
        _, few = self.broadcast("drained, few", self.contacts[:10])
        _, many = self.broadcast("drained, many", self.contacts)
        self.cloud.deploy(self.template, LogLevel="debug")
        # Longer than the interval of the schedule.
        time.sleep(70)
        check(not self.sandbox.received("drained"), "after a deployment an accepted broadcast is not sent for 70 s")
        self.switch("on")
        for answer in (few, many):
            self.completed(answer["broadcast_id"], 300)
        self.check_one_each("drained, few", self.contacts[:10])
        self.check_one_each("drained, many", self.contacts)

    def halt(self):
        say("the switch at halt, for restored tables")
        self.switch("halt")
        _, answer = self.broadcast("halted", self.contacts)
        until(
            "the jobs are halted",
            240,
            lambda: self.report(answer["broadcast_id"])["status"] == "halted",
        )
        check(not self.sandbox.received("halted"), "jobs are halted, and nothing is sent")
        self.switch("on")
        status, _ = self.api.call(self.caller, "POST", f"/v1/broadcasts/{answer['broadcast_id']}/resume")
        check(status == 202, "the jobs can be resumed", status)
        self.completed(answer["broadcast_id"], 300)
        self.check_one_each("halted", self.contacts)

    def roll_back(self):
        say("roll back")
        functions = self.cloud.client("lambda")
        name = f"{STACK}-process-job"
        versions = [v["Version"] for v in functions.list_versions_by_function(FunctionName=name)["Versions"]]
        live = functions.get_alias(FunctionName=name, Name="live")["FunctionVersion"]
        check(len(versions) > 2, f"versions are kept: {versions}, live is {live}")
        functions.update_alias(FunctionName=name, Name="live", FunctionVersion="1")
        self.send_to_all("by version 1")
        functions.update_alias(FunctionName=name, Name="live", FunctionVersion=live)

    def rotate(self):
        say("a token is rotated, and revoked")
        ssm, page = self.cloud.client("ssm"), PAGES[0]
        name = f"/{STACK}/page-tokens/{page}"

        def give():
            """Sets a new token. Messenger then refuses the old one, which the functions still have in their cache."""
            token = secrets.token_hex(16)
            self.sandbox.known_tokens.append(token)
            ssm.put_parameter(Name=name, Value=token, Type="SecureString", Overwrite=True)
            self.sandbox.control("PUT", f"tokens/{page}", {"token": token})

        give()
        self.send_to_all("rotated")

        ssm.delete_parameter(Name=name)
        self.sandbox.control("DELETE", f"tokens/{page}")
        _, answer = self.broadcast("revoked", self.contacts)
        path = f"/v1/broadcasts/{answer['broadcast_id']}"
        report = until(
            "the Page's job is halted",
            120,
            lambda: (found := self.report(answer["broadcast_id"]))["status"] == "halted" and found,
        )
        statuses = {job["page_id"]: job["status"] for job in report["jobs"]}
        check(statuses == {page: "halted", PAGES[1]: "completed"}, "the job of its Page is halted, the other completes", statuses)
        give()
        status, answer = self.api.call(self.caller, "POST", f"{path}/resume")
        check(status == 202, "with a new token the job is resumed", f"{status} {answer}")
        self.completed(answer["broadcast_id"], 120)
        self.check_one_each("revoked", self.contacts)

    def stop_by_hand(self):
        say("sending is switched off in the table, without the API")
        item = {"pk": {"S": "sending"}, "sk": {"S": "all"}}
        self.cloud.client("dynamodb").update_item(
            TableName=f"{STACK}-broadcasts",
            Key=item,
            UpdateExpression="SET #state = :state",
            ExpressionAttributeNames={"#state": "state"},
            ExpressionAttributeValues={":state": {"S": "off"}},
        )
        _, answer = self.broadcast("stopped", self.contacts)
        time.sleep(70)
        check(not self.sandbox.received("stopped"), "an accepted broadcast is not sent for 70 s")
        self.switch("on")
        self.completed(answer["broadcast_id"], 300)
        self.check_one_each("stopped", self.contacts)

    def restore(self):
        say("tables are restored from a copy that does not record a broadcast as sent")
        tables = self.cloud.client("dynamodb")
        names = [f"{STACK}-{table}" for table in ("contacts", "broadcasts", "deliveries")]

        def copy(name, as_of):
            return tables.create_backup(TableName=name, BackupName=as_of)["BackupDetails"]["BackupArn"]

        self.switch("off")
        _, forgotten = self.broadcast("sent after the copy", self.contacts)
        copies = {name: copy(name, "restored") for name in names}
        self.switch("on")
        self.completed(forgotten["broadcast_id"], 300)

        self.switch("off")
        for name in names:
            copy(name, "before-restore")
            tables.update_table(TableName=name, DeletionProtectionEnabled=False)
            tables.delete_table(TableName=name)
            tables.get_waiter("table_not_exists").wait(TableName=name, WaiterConfig={"Delay": 1})
            tables.restore_table_from_backup(TargetTableName=name, BackupArn=copies[name])
            tables.get_waiter("table_exists").wait(TableName=name, WaiterConfig={"Delay": 1})
            tables.update_table(TableName=name, DeletionProtectionEnabled=True)
            recovery = {"PointInTimeRecoveryEnabled": True}
            tables.update_continuous_backups(TableName=name, PointInTimeRecoverySpecification=recovery)
            if not name.endswith("contacts"):
                ends = {"Enabled": True, "AttributeName": "expires_at"}
                tables.update_time_to_live(TableName=name, TimeToLiveSpecification=ends)
        pending = self.report(forgotten["broadcast_id"])["counters"]["pending"]
        check(pending == 120, "the copy holds a broadcast, and not that it was sent", pending)
        status, found = self.api.call(self.caller, "GET", "/v1/sending")
        check(found["state"] == "off", "sending is off in the restored tables", f"{status} {found}")
        self.switch("halt")
        until(
            "its jobs are halted",
            300,
            lambda: self.report(forgotten["broadcast_id"])["status"] == "halted",
        )
        self.switch("on")
        self.send_to_all("after the restore", 300)
        self.check_one_each("sent after the copy", self.contacts)

    def forget(self):
        say("a person's data is deleted")
        contact = self.contacts[0]
        report = self.send_to_all("known")

        def erase():
            status, answer = self.api.call(self.caller, "DELETE", f"/v1/contacts/{contact}?erase=true")
            check(status == 200 and answer["next_cursor"] is None, "an erasure is answered", f"{status} {answer}")
            return answer

        answer = erase()
        check(answer["erased"]["contact"], "the contact is deleted", answer["erased"])
        kept = [one["status"] for one in answer["kept"] if one["broadcast_id"] == report["broadcast_id"]]
        check(kept == ["sent"], "a delivery of a moment ago is kept", answer["kept"])
        again = self.report(report["broadcast_id"])
        check(again["counters"] == report["counters"], "the counters stay", again["counters"])
        status, answer = self.broadcast("forgotten", self.contacts)
        check(answer["contacts"]["unknown_ids"] == [contact], "the contact is unknown", f"{status} {answer}")
        self.completed(answer["broadcast_id"], 120)
        check(contact not in self.sandbox.received("forgotten"), "nothing is sent to it")
        check(erase()["erased"]["unknown_ids"] == 1, "the id is taken out of the broadcast that listed it as unknown")

    def dead_letter(self):
        say("a queue message that is no wake-up")
        sqs = self.cloud.client("sqs")
        jobs, dead = self.outputs["JobsQueueUrl"], self.outputs["DeadLettersUrl"]
        before = sqs.get_queue_attributes(QueueUrl=jobs, AttributeNames=["VisibilityTimeout"])["Attributes"]
        check(before == {"VisibilityTimeout": "150"}, "the queue hides wake-ups for 150 s", before)
        sqs.set_queue_attributes(QueueUrl=jobs, Attributes={"VisibilityTimeout": "2"})
        sqs.send_message(QueueUrl=jobs, MessageBody="poison", MessageGroupId="poison", MessageDeduplicationId="1")

        def letter():
            received = sqs.receive_message(QueueUrl=dead, AttributeNames=["ApproximateReceiveCount"])
            return received.get("Messages")

        letters = until("it is in the dead-letter queue", 120, letter)
        check(letters[0]["Body"] == "poison", "it ends in the dead-letter queue")
        self.send_to_all("after")
        sqs.set_queue_attributes(QueueUrl=jobs, Attributes=before)

    def another_stack(self):
        say("a second stack, with the other choices")
        other = f"{STACK}-two"
        try:
            self.cloud.deploy(self.template, f"{STACK}-wrong", JwtIssuer="https://issuer.example.com")
            check(False, "an issuer without an audience is refused")
        except Failed as refusal:
            check("go together" in str(refusal), "an issuer without an audience is refused", refusal)
        outputs = self.cloud.deploy(
            self.template,
            other,
            Architecture="x86_64",
            JwtIssuer="https://issuer.example.com",
            JwtAudience="oncecast",
            PagesClaim="pages",
            CorsOrigin="https://app.example.com",
            AppSecret="none",
            SecretsKeyArn=f"arn:aws:kms:{REGION}:000000000000:key/example",
            AlarmEmail="operator@example.com",
        )
        api = Api(self.cloud, outputs["ApiId"])
        for who, caller in (("an anonymous client", None), ("a caller of the first stack", self.caller)):
            status, _ = api.call(caller, "GET", "/v1/broadcasts")
            check(status == 401, f"{who} is refused without a token", status)
        status, _ = api.call(None, "POST", "/v1/webhooks/messenger", {"object": "page", "entry": []})
        check(status == 403, "without an app secret webhooks are refused", status)
        formation, tables = self.cloud.client("cloudformation"), self.cloud.client("dynamodb")
        formation.delete_stack(StackName=other)
        formation.get_waiter("stack_delete_complete").wait(StackName=other, WaiterConfig={"Delay": 1})
        kept = [name for name in tables.list_tables()["TableNames"] if name.startswith(f"{other}-")]
        check(len(kept) == 3, "its tables outlive it", kept)
        self.import_tables(other, formation)

    def import_tables(self, stack, formation):
        """Makes a deleted stack again, with its tables."""
        printed = subprocess.run([ROOT / "infra/tables"], check=True, text=True, capture_output=True).stdout
        tables = [
            {
                "ResourceType": "AWS::DynamoDB::Table",
                "LogicalResourceId": f"{table.capitalize()}Table",
                "ResourceIdentifier": {"TableName": f"{stack}-{table}"},
            }
            for table in ("contacts", "broadcasts", "deliveries")
        ]
        named = {"StackName": stack, "ChangeSetName": "tables"}
        formation.create_change_set(
            **named, ChangeSetType="IMPORT", TemplateBody=printed, ResourcesToImport=tables
        )
        formation.get_waiter("change_set_create_complete").wait(**named, WaiterConfig={"Delay": 1})
        formation.execute_change_set(**named)
        formation.get_waiter("stack_import_complete").wait(StackName=stack, WaiterConfig={"Delay": 1})
        outputs = self.cloud.deploy(self.template, stack, Architecture="x86_64")
        check(outputs["ContactsTableName"] == f"{stack}-contacts", "a new stack takes them over")

    def logs(self):
        say("logs")
        logs = self.cloud.client("logs")
        lines = []
        for function in FUNCTIONS:
            group = f"/aws/lambda/{STACK}-{function}"
            pages = logs.get_paginator("filter_log_events").paginate(logGroupName=group)
            own = [event["message"] for page in pages for event in page["events"]]
            check(own, f"{function} writes to {group}")
            lines += own
        known = [*self.sandbox.known_tokens, self.sandbox.app_secret, self.sandbox.verify_token]
        known += ["drained, many", "by version 1"]
        shown = [line for line in lines if any(secret in line for secret in known)]
        check(not shown, f"{len(lines)} log lines hold no token, secret or text", shown[:1])
        refused = [line for line in lines if "AccessDenied" in line or "not authorized" in line]
        check(not refused, "no role was refused anything", refused[:1])
        namespace = f"Oncecast/{STACK}"
        sent = 0
        for line in lines:
            try:
                metrics = json.loads(line[line.index("{"):])
            except ValueError:
                continue
            if namespace in json.dumps(metrics.get("_aws", {})):
                sent += metrics.get("Sent", 0)
        expected = sum(self.sandbox.received("").values())
        check(sent == expected, f"the metrics count {expected} messages sent", sent)


def stay(cloud, run):
    """Leaves everything running until Ctrl-C, and prints the variables for a shell."""
    print("\nEverything runs until Ctrl-C. In another shell:")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_DEFAULT_REGION", "AWS_ENDPOINT_URL"):
        print(f"export {name}={cloud.env[name]}")
    print(f"export CALLER={run.caller.access_key}:{run.caller.secret_key}")
    print(f"# The API is {run.outputs['ApiUrl']}; if that name does not resolve: curl --connect-to ::127.0.0.1:{cloud.port}", flush=True)
    try:
        signal.pause()
    except KeyboardInterrupt:
        pass


def main():
    parser = argparse.ArgumentParser(prog="infra/ministack")
    parser.add_argument("--zips", default=str(ROOT / "target/lambda"), help="folder of the zips, or `debug`")
    parser.add_argument("--local", default=str(ROOT / "target/debug/oncecast"), help="executable that provides the sandbox")
    parser.add_argument("--stay", action="store_true", help="leave everything running at the end")
    parser.add_argument("steps", nargs="*", help="steps to run after the first two; default: all")
    options = parser.parse_args()

    # SIGTERM must end the started processes, too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    directory = Path(tempfile.mkdtemp(prefix="oncecast-ministack-"))
    processes = Processes(directory)
    begun = time.monotonic()
    try:
        zips = Path(options.zips).resolve() if options.zips != "debug" else debug_zips(directory / "zips")
        template = template_for(directory, zips)
        sandbox = Sandbox(processes, directory, options.local)
        cloud = Cloud(processes, directory)
        run = Run(cloud, sandbox, template)
        run.deploy()
        run.callers()
        for step in options.steps or STEPS:
            getattr(run, step)()
        print(f"\nall of it in {time.monotonic() - begun:.0f} s")
        if options.stay:
            stay(cloud, run)
        return 0
    except Failed as error:
        print(f"\nfailed: {error}", file=sys.stderr)
        print("\nthe emulator's last lines:", processes.log("ministack")[-2_000:], sep="\n", file=sys.stderr)
        if options.stay:
            stay(cloud, run)
        return 1
    finally:
        processes.stop()
        shutil.rmtree(directory, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main())
