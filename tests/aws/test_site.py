"""The public site on AWS: what the template makes, the function for each address, and who may change what is shown."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import boto3
import pytest
from pydantic import ValidationError

from catalunya.errors import CatalunyaError
from catalunya.lake import layout
from catalunya.site.bucket import SiteBucket
from catalunya.site.headers import HEADERS
from infrastructure.cdk import node_environment
from infrastructure.parameters import parameters
from tests import s3
from tests.aws.needs import Need, necessary
from tests.aws.policy import ACCOUNT, REGION, Account
from tests.aws.recorder import KEY, Recorder
from tests.aws.synthesis import WORKER, synthesise
from tests.site.test_publishing import FIRST, SECOND, THIRD, small

pytestmark = pytest.mark.aws

NAME = f"catalunya-production-site-{ACCOUNT}"
STORE = f"arn:aws:cloudfront::{ACCOUNT}:key-value-store/{NAME}"
CERTIFICATE = f"arn:aws:acm:us-east-1:{ACCOUNT}:certificate/1a2b3c4d"


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Account:
    """The account of production with a site, without a domain of its own; cdk-nag has found nothing."""
    return _synthesised(tmp_path_factory.mktemp("cdk"), site=True, airflow=True)


def _synthesised(folder: Path, **settings: Any) -> Account:
    with zipfile.ZipFile(folder / "functions.zip", "w") as archive:
        archive.writestr("catalunya/runs/aws_lambda.py", "")
    synthesise(folder / "out", folder / "functions.zip", "production", **settings)
    return Account(json.loads((folder / "out" / "catalunya-production.template.json").read_text()))


def only(account: Account, kind: str) -> dict[str, Any]:
    [found] = account.of_type(kind).values()
    return cast(dict[str, Any], found)


def test_the_bucket_is_private_and_read_by_the_distribution_alone(template: Account) -> None:
    buckets = {b["BucketName"]: b for b in template.of_type("AWS::S3::Bucket").values()}
    assert set(buckets[NAME]["PublicAccessBlockConfiguration"].values()) == {True}
    [policy] = [
        p for p in template.of_type("AWS::S3::BucketPolicy").values()
        if "cloudfront.amazonaws.com" in json.dumps(p)
    ]  # fmt: skip
    allowed = [s for s in policy["PolicyDocument"]["Statement"] if s["Effect"] == "Allow"]
    assert {s["Principal"]["Service"] for s in allowed} == {"cloudfront.amazonaws.com"}
    assert {action for s in allowed for action in ([s["Action"]] if isinstance(s["Action"], str) else s["Action"])} == {
        "s3:GetObject", "s3:ListBucket",
    }  # fmt: skip
    [distribution] = template.of_type("AWS::CloudFront::Distribution")
    for statement in allowed:
        [arn] = statement["Condition"]["StringEquals"].values()
        assert arn == f"arn:aws:cloudfront::{ACCOUNT}:distribution/{distribution}"
    control = only(template, "AWS::CloudFront::OriginAccessControl")["OriginAccessControlConfig"]
    assert (control["SigningBehavior"], control["SigningProtocol"]) == ("always", "sigv4")


def test_cloudfront_sends_the_headers_of_the_site_s_own_server_over_tls_only(template: Account) -> None:
    config = only(template, "AWS::CloudFront::ResponseHeadersPolicy")["ResponseHeadersPolicyConfig"]
    security = config["SecurityHeadersConfig"]
    assert security["StrictTransportSecurity"]["AccessControlMaxAgeSec"] == 365 * 86400
    sent = {
        "content-security-policy": security["ContentSecurityPolicy"]["ContentSecurityPolicy"],
        "referrer-policy": security["ReferrerPolicy"]["ReferrerPolicy"],
        "x-content-type-options": "nosniff" if security["ContentTypeOptions"] else "",
        "access-control-allow-origin": ",".join(config["CorsConfig"]["AccessControlAllowOrigins"]["Items"]),
        **{one["Header"]: one["Value"] for one in config["CustomHeadersConfig"]["Items"]},
    }
    assert sent == HEADERS
    behaviour = only(template, "AWS::CloudFront::Distribution")["DistributionConfig"]["DefaultCacheBehavior"]
    assert behaviour["ViewerProtocolPolicy"] == "redirect-to-https"
    assert (behaviour["AllowedMethods"], behaviour["Compress"]) == (["GET", "HEAD"], True)
    assert only(template, "AWS::CloudFront::CachePolicy")["CachePolicyConfig"]["MinTTL"] == 86400


def test_a_domain_is_an_option_and_needs_its_certificate(template: Account, tmp_path: Path) -> None:
    def viewers(account: Account) -> dict[str, Any]:
        return cast(dict[str, Any], only(account, "AWS::CloudFront::Distribution")["DistributionConfig"])

    assert "Aliases" not in viewers(template) and "ViewerCertificate" not in viewers(template)
    named = _synthesised(tmp_path, site=True, site_domain="data.example.org", site_certificate=CERTIFICATE)
    assert viewers(named)["Aliases"] == ["data.example.org"]
    certificate = viewers(named)["ViewerCertificate"]
    assert (certificate["AcmCertificateArn"], certificate["MinimumProtocolVersion"]) == (
        CERTIFICATE, "TLSv1.2_2021",
    )  # fmt: skip
    assert named.template["Outputs"]["Site"]["Value"] == "https://data.example.org"
    for wrong in ({"site_domain": "data.example.org"}, {"site_certificate": CERTIFICATE}):
        with pytest.raises(ValidationError, match="give both or none"):
            parameters("development", {"site": True, **wrong})
    with pytest.raises(ValidationError, match="site = true"):
        parameters("development", {"site_domain": "data.example.org", "site_certificate": CERTIFICATE})


def test_airflow_gets_the_place_and_the_address_of_the_site(template: Account) -> None:
    [launch] = [one for one in template.resources.values() if one["Type"] == "AWS::EC2::LaunchTemplate"]
    [script] = launch["Properties"]["LaunchTemplateData"]["UserData"].values()
    text = str(template.resolve(script))
    [distribution] = template.of_type("AWS::CloudFront::Distribution")
    for line in (
        f"CATALUNYA_SITE=s3://{NAME}", "CATALUNYA_SITE_SERVER=0",
        f"CATALUNYA_SITE_URL=https://{distribution}.DomainName",
    ):  # fmt: skip
        assert line in text
    settings = parameters("production", {"workers": [WORKER], "site": True})
    assert (
        settings.airflow_variables(ACCOUNT, REGION, "https://x.example")["CATALUNYA_SITE_URL"]
        == "https://x.example"
    )


def test_without_the_option_there_is_no_site(templates: dict[str, Account]) -> None:
    for account in templates.values():
        assert not [one for one in account.resources.values() if "CloudFront" in one["Type"]]
        assert not [b for b in account.of_type("AWS::S3::Bucket").values() if "-site-" in b["BucketName"]]


def test_cfn_lint_finds_nothing_in_the_site(template: Account, tmp_path: Path) -> None:
    (tmp_path / "site.template.json").write_text(json.dumps(template.template))
    command = [str(Path(sys.executable).with_name("cfn-lint")), str(tmp_path / "site.template.json")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")


RUN = """
import { readFileSync } from "node:fs";
const source = readFileSync(0, "utf-8").replace('import cf from "cloudfront";', "");
const requests = JSON.parse(process.argv[1]);
const shown = process.argv[2];
async function get(key) {
    if (!shown || key !== "current") throw new Error("KeyNotFound");
    return shown;
}
const cf = { kvs: () => ({ get }) };
const handler = new Function("cf", source + "; return handler;")(cf);
const answers = [];
for (const uri of requests) {
    const [path, query] = uri.split("?");
    const pairs = query ? query.split("&").map((one) => one.split("=")) : [];
    const querystring = Object.fromEntries(pairs.map(([name, value]) => [name, { value: value || "" }]));
    answers.push(await handler({ request: { uri: path, querystring } }));
}
console.log(JSON.stringify(answers));
"""


def answers(template: Account, shown: str, *requests: str) -> list[dict[str, Any]]:
    """What the function of the template answers, in a Node.js."""
    code = only(template, "AWS::CloudFront::Function")["FunctionCode"]
    assert len(code.encode()) < 10_000, "the limit of CloudFront"
    command = ["node", "--input-type=module", "--eval", RUN, json.dumps(requests), shown]
    done = subprocess.run(
        command, input=code, env=node_environment(), capture_output=True, text=True, check=True, timeout=600
    )
    return cast(list[dict[str, Any]], json.loads(done.stdout))


def test_the_function_leads_each_address_into_the_site_that_is_shown(template: Account) -> None:
    site = "20260105T060000Z-1a2b3c4d-0123456789ab"
    paths = {
        "/": "/index.html", "/ca/": "/ca/index.html", "/ca/mapa/?year=2020": "/ca/mapa/index.html",
        "/data/csv/population.csv": "/data/csv/population.csv", "//ca/": "/ca/index.html", "/site.json": "/site.json",
    }  # fmt: skip
    assert [one["uri"] for one in answers(template, site, *paths)] == [
        f"/sites/{site}{p}" for p in paths.values()
    ]
    assert answers(template, site, "/assets/site.1a2b.css")[0]["uri"] == "/assets/site.1a2b.css"


def test_the_function_sends_an_address_without_its_slash_on_within_the_site(template: Account) -> None:
    for given, expected in {
        "/ca": "/ca/",
        "/ca/mapa?year=2020&kind=all": "/ca/mapa/?year=2020&kind=all",
        "//evil.example/ca": "/evil.example/ca/",
    }.items():
        [answer] = answers(template, "x", given)
        assert (answer["statusCode"], answer["headers"]["location"]["value"]) == (301, expected)


def test_before_the_first_site_the_function_answers_with_a_page_that_says_so(template: Account) -> None:
    [answer] = answers(template, "", "/ca/")
    assert (answer["statusCode"], answer["headers"]["retry-after"]["value"]) == (503, "60")
    assert "Encara no hi ha dades publicades" in answer["body"]


@pytest.fixture(scope="module")
def published(
    template: Account, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Recorder, dict[str, set[Need]]]]:
    """The needs of the role that publishes sites, shows an old one again, and deletes those of releases that are gone.

    Behind the gate, which denies what the policy of the template does not allow.
    """
    folder = tmp_path_factory.mktemp("aws")
    look_up = socket.getaddrinfo
    with (
        s3.running(folder, "s3", "cloudfront", "cloudfront-keyvaluestore", MINISTACK_ACCOUNT_ID=ACCOUNT) as emulator,
        pytest.MonkeyPatch.context() as patch,
    ):  # fmt: skip
        for name, value in emulator.env.items():
            patch.setenv(name, value)
        emulator.new_bucket(NAME)
        boto3.client("cloudfront", region_name=REGION).create_key_value_store(Name=NAME)
        recorder = Recorder(emulator.endpoint, template, NAME)
        with recorder.front:
            local = recorder.front.endpoint.replace("127.0.0.1", "localhost")
            patch.setenv("AWS_ACCESS_KEY_ID", KEY)
            patch.setenv("AWS_ENDPOINT_URL", recorder.front.endpoint)
            patch.setenv("AWS_ENDPOINT_URL_CLOUDFRONT_KEYVALUESTORE", local)
            patch.setattr(
                socket, "getaddrinfo",
                lambda host, *a, **k: look_up("127.0.0.1" if str(host).endswith(".localhost") else host, *a, **k),
            )  # fmt: skip
            with recorder.role("publish"):
                place = SiteBucket(f"s3://{NAME}")
                assert place.shown() is None
                place.publish(small(folder, FIRST))
                place.publish(small(folder, SECOND, FIRST, SECOND))
                place.publish(small(folder, FIRST, FIRST, SECOND))
                place.publish(small(folder, THIRD, THIRD))
                shown = place.shown()
                assert shown is not None and shown.release_id == THIRD
            assert recorder.gate.denied == []
            yield recorder, dict(recorder.needed)


def test_publish_has_every_right_that_it_needs_for_the_site_and_no_other(
    published: Any, template: Account
) -> None:
    _, needed = published
    role = "catalunya-production-publish"
    rights = {
        right for right in template.rights(role)
        if right.resource.startswith((f"arn:aws:s3:::{NAME}", "arn:aws:cloudfront"))
    }  # fmt: skip
    assert len(rights) > 10
    assert rights - necessary(template, role, needed[role]) == set()


@pytest.mark.parametrize("role", ["ingest", "stage", "build", "monitor", "steward", "reader", "orchestrator"])
def test_no_other_role_can_change_what_the_site_shows(published: Any, template: Account, role: str) -> None:
    recorder, _ = published
    name = f"catalunya-production-{role}"
    for action, resource in (
        ("s3:PutObject", f"arn:aws:s3:::{NAME}/sites/x/index.html"), ("s3:DeleteObject", f"arn:aws:s3:::{NAME}/404.html"),
        ("cloudfront-keyvaluestore:PutKey", STORE),
    ):  # fmt: skip
        assert not template.may(name, action, resource)
    with recorder.role(role), pytest.raises(CatalunyaError, match="may this role use them"):
        SiteBucket(f"s3://{NAME}").shown()


def test_publish_reads_the_borders_that_the_maps_need_and_nothing_else_of_what_is_staged(
    template: Account,
) -> None:
    role, lake = "catalunya-production-publish", f"arn:aws:s3:::catalunya-production-lake-{ACCOUNT}"
    assert template.may(role, "s3:GetObject", f"{lake}/{layout.staged('boundaries', FIRST)}")
    assert not template.may(role, "s3:GetObject", f"{lake}/{layout.staged('social_services', FIRST)}")
