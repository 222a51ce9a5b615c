"""The public site: a private bucket behind CloudFront, and the key value store that names the site that readers see.

`catalunya.site.bucket` says what lies in the bucket. The function `site.js` leads each address into the site of the store:
the keys of the cache differ with each site, and nothing has to be invalidated.
"""

from __future__ import annotations

import json
from pathlib import Path

from aws_cdk import Acknowledgment, Duration, Validations
from aws_cdk import aws_certificatemanager as acm
from aws_cdk import aws_cloudfront as cloudfront
from aws_cdk import aws_cloudfront_origins as origins
from aws_cdk import aws_iam as iam
from aws_cdk import aws_s3 as s3
from constructs import Construct

from catalunya.site.bucket import ERROR_PAGE, SITES
from catalunya.site.headers import ASSETS, HEADERS
from catalunya.site.notices import not_yet
from catalunya.site.record import RECORD
from infrastructure.parameters import Parameters
from infrastructure.roles import acknowledge_wildcards, nag_address

_FUNCTION = Path(__file__).with_name("site.js")
_KEPT = Duration.days(1)
"""How long CloudFront keeps a file at least: a site never changes under its name."""
_ACKNOWLEDGED = {
    "AwsSolutions-CFR1": "Open data for everybody: no country is refused.",
    "AwsSolutions-CFR2": "Static files that everybody may read: there is no request for a firewall to refuse.",
    "AwsSolutions-CFR3": "No log of readers is kept: it would hold their addresses. Requests to the bucket are logged.",
}
_WHY = {
    f"{SITES}/*": "A site is named after its release and a digest, which are made when it is built.",
    f"{SITES}/*/{RECORD}": "A site is named after its release and a digest, which are made when it is built.",
    f"{SITES}/*/{ASSETS}/*": "The names of assets change with their content.",
    f"{SITES}/*/{ERROR_PAGE}": "A site is named after its release and a digest, which are made when it is built.",
    f"{ASSETS}/*": "The names of assets change with their content.",
}


class Site(Construct):
    """A distribution of CloudFront; only `publish` may change what it shows."""

    def __init__(
        self, scope: Construct, name: str, settings: Parameters, bucket: s3.Bucket, publish: iam.Role
    ) -> None:
        super().__init__(scope, name)
        self.settings = settings
        self.bucket = bucket
        # `catalunya.site.bucket` finds the store by the name of the bucket.
        self.store = cloudfront.KeyValueStore(
            self, "Current", key_value_store_name=bucket.bucket_name, comment="The site that readers see"
        )
        self.distribution = self._distribution()
        self._allow(publish)

    @property
    def url(self) -> str:
        """Address of the site."""
        return f"https://{self.settings.site_domain or self.distribution.distribution_domain_name}"

    def _distribution(self) -> cloudfront.Distribution:
        settings = self.settings
        domain = settings.site_domain
        distribution = cloudfront.Distribution(
            self,
            "Distribution",
            comment=f"{settings.prefix}: the public site",
            default_behavior=cloudfront.BehaviorOptions(
                # Who may not list is told "denied" of a file that is missing, and could not be shown the page for that.
                origin=origins.S3BucketOrigin.with_origin_access_control(
                    self.bucket,
                    origin_access_levels=[cloudfront.AccessLevel.READ, cloudfront.AccessLevel.LIST],
                ),
                viewer_protocol_policy=cloudfront.ViewerProtocolPolicy.REDIRECT_TO_HTTPS,
                allowed_methods=cloudfront.AllowedMethods.ALLOW_GET_HEAD,
                compress=True,
                cache_policy=self._cache_policy(),
                response_headers_policy=self._headers_policy(),
                function_associations=[
                    cloudfront.FunctionAssociation(
                        event_type=cloudfront.FunctionEventType.VIEWER_REQUEST, function=self._function()
                    )
                ],
            ),
            error_responses=[
                cloudfront.ErrorResponse(
                    http_status=404, response_page_path=f"/{ERROR_PAGE}", ttl=Duration.seconds(10)
                )
            ],
            domain_names=[domain] if domain else None,
            certificate=(
                acm.Certificate.from_certificate_arn(self, "Certificate", settings.site_certificate)
                if settings.site_certificate
                else None
            ),
            minimum_protocol_version=(
                cloudfront.SecurityPolicyProtocol.TLS_V1_2_2021 if settings.site_certificate else None
            ),
            http_version=cloudfront.HttpVersion.HTTP2_AND_3,
            price_class=cloudfront.PriceClass.PRICE_CLASS_100,
        )
        reasons = dict(_ACKNOWLEDGED)
        if domain is None:
            reasons["AwsSolutions-CFR4"] = (
                "Without a domain of its own the certificate is CloudFront's, which sets the versions of TLS."
            )
        Validations.of(distribution).acknowledge(
            *(Acknowledgment(id=rule, reason=reason) for rule, reason in reasons.items())
        )
        return distribution

    def _function(self) -> cloudfront.Function:
        code = _FUNCTION.read_text(encoding="utf-8").replace(
            "body: NOT_YET", f"body: {json.dumps(not_yet())}"
        )
        return cloudfront.Function(
            self,
            "Function",
            function_name=f"{self.settings.prefix}-site",
            comment="Leads each address into the site that readers see",
            runtime=cloudfront.FunctionRuntime.JS_2_0,
            key_value_store=self.store,
            code=cloudfront.FunctionCode.from_inline(code),
        )

    def _cache_policy(self) -> cloudfront.CachePolicy:
        return cloudfront.CachePolicy(
            self,
            "Cache",
            cache_policy_name=f"{self.settings.prefix}-site",
            comment="Kept by path; browsers ask again as each file says",
            min_ttl=_KEPT,
            default_ttl=_KEPT,
            max_ttl=Duration.days(365),
            enable_accept_encoding_brotli=True,
            enable_accept_encoding_gzip=True,
        )

    def _headers_policy(self) -> cloudfront.ResponseHeadersPolicy:
        """Return the headers of `catalunya.site.headers`, and that the site is reached over TLS only."""
        given = dict(HEADERS)
        return cloudfront.ResponseHeadersPolicy(
            self,
            "Headers",
            response_headers_policy_name=f"{self.settings.prefix}-site",
            security_headers_behavior=cloudfront.ResponseSecurityHeadersBehavior(
                content_security_policy=cloudfront.ResponseHeadersContentSecurityPolicy(
                    content_security_policy=given.pop("content-security-policy"), override=True
                ),
                content_type_options=cloudfront.ResponseHeadersContentTypeOptions(
                    override=given.pop("x-content-type-options") == "nosniff"
                ),
                referrer_policy=cloudfront.ResponseHeadersReferrerPolicy(
                    referrer_policy=cloudfront.HeadersReferrerPolicy[
                        given.pop("referrer-policy").upper().replace("-", "_")
                    ],
                    override=True,
                ),
                strict_transport_security=cloudfront.ResponseHeadersStrictTransportSecurity(
                    access_control_max_age=Duration.days(365), include_subdomains=False, override=True
                ),
            ),
            cors_behavior=cloudfront.ResponseHeadersCorsBehavior(
                access_control_allow_origins=[given.pop("access-control-allow-origin")],
                access_control_allow_headers=["*"],
                access_control_allow_methods=["GET", "HEAD"],
                access_control_allow_credentials=False,
                origin_override=True,
            ),
            custom_headers_behavior=cloudfront.ResponseCustomHeadersBehavior(
                custom_headers=[
                    cloudfront.ResponseCustomHeader(header=name, value=value, override=True)
                    for name, value in given.items()
                ]
            ),
        )

    def _allow(self, publish: iam.Role) -> None:
        """Let the role upload sites, show one, and delete old ones."""
        reads = (f"{SITES}/*/{RECORD}", f"{SITES}/*/{ASSETS}/*", f"{SITES}/*/{ERROR_PAGE}")
        writes = (f"{SITES}/*", f"{ASSETS}/*", ERROR_PAGE)
        deletes = (f"{SITES}/*", f"{ASSETS}/*")
        for action, patterns in (
            ("s3:GetObject", reads), ("s3:PutObject", writes), ("s3:DeleteObject", deletes),
        ):  # fmt: skip
            self._grant(publish, [action], [self.bucket.arn_for_objects(one) for one in patterns])
        self._grant(publish, ["s3:ListBucket"], [self.bucket.bucket_arn])
        shown = [f"cloudfront-keyvaluestore:{one}" for one in ("DescribeKeyValueStore", "GetKey", "PutKey")]
        self._grant(publish, ["cloudfront:DescribeKeyValueStore", *shown], [self.store.key_value_store_arn])
        acknowledge_wildcards(
            publish, {nag_address(self.bucket, pattern): reason for pattern, reason in _WHY.items()}
        )

    @staticmethod
    def _grant(role: iam.Role, actions: list[str], resources: list[str]) -> None:
        role.add_to_policy(iam.PolicyStatement(actions=actions, resources=resources))
