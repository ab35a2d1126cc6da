"""The official Azure SDK against the emulator, over TLS. Run by official_sdk.rs.

Arguments: the emulator's TLS port, its CA's file, tenant, client id, client secret, its plain port, the
files of a client certificate and of a federated token.
"""
import os
import sys

from azure.core.exceptions import (
    ClientAuthenticationError,
    HttpResponseError,
    ResourceNotFoundError,
)
from azure.identity import (
    CertificateCredential,
    ClientSecretCredential,
    ManagedIdentityCredential,
    WorkloadIdentityCredential,
)
from azure.keyvault.certificates import CertificateClient
from azure.keyvault.keys import KeyClient
from azure.keyvault.secrets import SecretClient

PORT, CA, TENANT, CLIENT, SECRET, PLAIN, CERTIFICATE, TOKEN_FILE = sys.argv[1:9]
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


ENTRA = {"authority": URL, "disable_instance_discovery": True, "connection_verify": CA}


def client(secret, kind=SecretClient):
    return with_credential(ClientSecretCredential(TENANT, CLIENT, secret, **ENTRA), kind)


def with_credential(credential, kind=SecretClient):
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

certificate = CertificateCredential(TENANT, CLIENT, CERTIFICATE, **ENTRA)
check("a client certificate", with_credential(certificate).get_secret("db").value == "v2")
workload = WorkloadIdentityCredential(tenant_id=TENANT, client_id=CLIENT, token_file_path=TOKEN_FILE, **ENTRA)
check("a workload identity", with_credential(workload).get_secret("db").value == "v2")
with open(TOKEN_FILE, "a") as file:
    file.write("x")
damaged = WorkloadIdentityCredential(tenant_id=TENANT, client_id=CLIENT, token_file_path=TOKEN_FILE, **ENTRA)
error = raises("a damaged federated token", ClientAuthenticationError, lambda: with_credential(damaged).get_secret("db"))
check("is told as Entra ID does", "AADSTS" in str(error))

os.environ["AZURE_POD_IDENTITY_AUTHORITY_HOST"] = f"http://127.0.0.1:{PLAIN}"
for what, arguments in [
    ("IMDS, the system's identity", {}),
    ("IMDS, by client id", {"client_id": "user-client"}),
    ("IMDS, by resource id", {"identity_config": {"msi_res_id": "/subscriptions/user"}}),
]:
    check(what, with_credential(ManagedIdentityCredential(**arguments)).get_secret("db").value == "v2")
stranger = ManagedIdentityCredential(client_id="nobody")
raises("an identity that the machine has not", Exception, lambda: with_credential(stranger).get_secret("db"))

os.environ["IDENTITY_ENDPOINT"] = f"http://127.0.0.1:{PLAIN}/msi/token"
os.environ["IDENTITY_HEADER"] = "emulator-identity-header"
for what, arguments in [
    ("App Service, the system's identity", {}),
    ("App Service, by client id", {"client_id": "user-client"}),
    ("App Service, by resource id", {"identity_config": {"mi_res_id": "/subscriptions/user"}}),
]:
    check(what, with_credential(ManagedIdentityCredential(**arguments)).get_secret("db").value == "v2")
os.environ["IDENTITY_HEADER"] = "wrong"
raises("a wrong header", Exception, lambda: with_credential(ManagedIdentityCredential()).get_secret("db"))
print(f"{checks} checks")
