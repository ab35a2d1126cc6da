//! Azure's clouds: which vault hosts, which authority and which token scope belong together
//! (<https://learn.microsoft.com/azure/key-vault/general/about-keys-secrets-certificates>,
//! <https://learn.microsoft.com/entra/identity-platform/authentication-national-cloud>).

use alloc::string::String;

use super::challenge::is_within;

/// A cloud with everything that goes with it.
#[derive(Debug, PartialEq, Eq)]
pub struct Cloud {
    /// The word in the configuration.
    pub name: &'static str,
    /// What its vaults' hosts end with; the first one is Key Vault's, the others' are of Managed HSMs.
    pub suffixes: &'static [&'static str],
    /// Its authorities; the first one is the default.
    pub authorities: &'static [&'static str],
}

/// All clouds that Azure has.
pub const CLOUDS: [Cloud; 3] = [
    Cloud {
        name: "public",
        suffixes: &["vault.azure.net", "managedhsm.azure.net"],
        authorities: &[
            "login.microsoftonline.com",
            "login.microsoft.com",
            "login.windows.net",
            "sts.windows.net",
        ],
    },
    Cloud {
        name: "us_government",
        suffixes: &["vault.usgovcloudapi.net", "managedhsm.usgovcloudapi.net"],
        authorities: &["login.microsoftonline.us", "login.usgovcloudapi.net"],
    },
    Cloud {
        name: "china",
        suffixes: &["vault.azure.cn", "managedhsm.azure.cn"],
        authorities: &["login.chinacloudapi.cn", "login.partner.microsoftonline.cn"],
    },
];

/// The cloud that a vault's host belongs to, with the suffix that says so.
#[must_use]
pub fn of_vault(host: &str) -> Option<(&'static Cloud, &'static str)> {
    CLOUDS.iter().find_map(|cloud| {
        let suffix = cloud.suffixes.iter().find(|s| is_below(host, s))?;
        Some((cloud, *suffix))
    })
}

/// The cloud that an authority's host belongs to.
#[must_use]
pub fn of_authority(host: &str) -> Option<&'static Cloud> {
    CLOUDS
        .iter()
        .find(|cloud| cloud.authorities.contains(&host))
}

/// A vault is below the suffix, never the suffix itself.
fn is_below(host: &str, suffix: &str) -> bool {
    is_within(host, suffix) && host != suffix
}

/// The scope of tokens for vaults with this suffix.
#[must_use]
pub fn scope(suffix: &str) -> String {
    format!("https://{suffix}/.default")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn vaults_and_authorities_know_their_cloud() {
        for (host, cloud, suffix) in [
            ("v.vault.azure.net", "public", "vault.azure.net"),
            ("h.managedhsm.azure.net", "public", "managedhsm.azure.net"),
            (
                "v.vault.usgovcloudapi.net",
                "us_government",
                "vault.usgovcloudapi.net",
            ),
            ("v.vault.azure.cn", "china", "vault.azure.cn"),
        ] {
            let (found, ending) = of_vault(host).unwrap();
            assert_eq!((found.name, ending), (cloud, suffix));
        }
        for host in [
            "vault.azure.net",
            "v-vault.azure.net",
            "v.vault.azure.net.evil.test",
            "v.vault.azure.com",
            "localhost",
        ] {
            assert_eq!(of_vault(host), None, "{host}");
        }
        assert_eq!(
            of_authority("login.microsoftonline.us").unwrap().name,
            "us_government"
        );
        assert_eq!(of_authority("login.microsoftonline.co"), None);
    }
}
