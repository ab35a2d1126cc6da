"""The official Azure SDK against the emulator, over TLS. Run by official_sdk.rs.

Arguments: the emulator's port, its CA's file, tenant, client id, client secret.
"""
import sys

from azure.core.exceptions import (
    ClientAuthenticationError,
    HttpResponseError,
    ResourceNotFoundError,
)
from azure.identity import ClientSecretCredential
from azure.keyvault.certificates import CertificateClient
from azure.keyvault.keys import KeyClient
from azure.keyvault.secrets import SecretClient

PORT, CA, TENANT, CLIENT, SECRET = sys.argv[1:6]
URL = f"https://localhost:{PORT}"
checks = 0


def check(what, holds):
    global checks
    assert holds, what
    checks += 1
    print("ok", what)


def raises(what, error, call):
    try:
        call()
    except error as raised:
        check(what, True)
        return raised
    raise AssertionError(f"{what}: nothing was raised")


def client(secret, kind=SecretClient):
    credential = ClientSecretCredential(
        TENANT, CLIENT, secret, authority=URL,
        disable_instance_discovery=True, connection_verify=CA,
    )
    return kind(
        URL, credential, verify_challenge_resource=False,
        connection_verify=CA, retry_total=0,
    )


vault = client(SECRET)
first = vault.set_secret("db", "v1", content_type="text/plain", tags={"team": "pay"})
check("set gives the value", first.value == "v1")
check("versions have 32 hex digits", len(first.properties.version) == 32)
second = vault.set_secret("db", "v2")
check("the latest version is the last", vault.get_secret("DB").value == "v2")
check("a version stays", vault.get_secret("db", first.properties.version).value == "v1")
old = vault.get_secret("db", first.properties.version).properties
check("content type and tags", (old.content_type, old.tags) == ("text/plain", {"team": "pay"}))
check("created and updated", old.created_on is not None and old.updated_on is not None)
for n in range(3):
    vault.set_secret("many", f"m{n}")
versions = list(vault.list_properties_of_secret_versions("many", max_page_size=2))
check("all pages of versions", len(versions) == 3)
names = {p.name for p in vault.list_properties_of_secrets()}
check("the list of secrets", names == {"db", "many", "web"})
raises("a missing secret", ResourceNotFoundError, lambda: vault.get_secret("nobody"))
raises("a bad name", HttpResponseError, lambda: vault.get_secret("a_b"))

vault.update_secret_properties("db", second.properties.version, enabled=False)
error = raises("a disabled secret", HttpResponseError, lambda: vault.get_secret("db"))
check("is forbidden", error.status_code == 403 and error.error.innererror["code"] == "SecretDisabled")
vault.update_secret_properties("db", second.properties.version, enabled=True)
check("enabled again", vault.get_secret("db").value == "v2")

vault.begin_delete_secret("db").wait()
raises("a deleted secret", ResourceNotFoundError, lambda: vault.get_secret("db"))
check("is among the deleted", vault.get_deleted_secret("db").name == "db")
vault.begin_recover_deleted_secret("db").wait()
check("and comes back", vault.get_secret("db").value == "v2")

error = raises("a wrong client secret", ClientAuthenticationError, lambda: client("wrong").get_secret("db"))
check("is told as Entra ID does", "AADSTS7000215" in str(error))
certificate = client(SECRET, CertificateClient).get_certificate("web")
check("a certificate's DER", bytes(certificate.cer) == b"emulated der")
key = client(SECRET, KeyClient).get_key("sign")
check("a key's modulus", (key.key.kty, bytes(key.key.n)) == ("RSA", b"\x01\x02\x03"))
raises("a missing key", ResourceNotFoundError, lambda: client(SECRET, KeyClient).get_key("nobody"))
print(f"{checks} checks")
