// A certified OpenID Connect provider for tests: PKCE is demanded, people are given as JSON.
import Provider from "oidc-provider";

const [port, redirect, people] = process.argv.slice(2);
const known = JSON.parse(people);

const provider = new Provider(`http://127.0.0.1:${port}`, {
  clients: [
    {
      client_id: "inferd-of-the-tests",
      client_secret: "secret-of-the-tests-with-a-provider",
      redirect_uris: [redirect],
      grant_types: ["authorization_code"],
      response_types: ["code"],
    },
  ],
  pkce: { required: () => true },
  scopes: ["openid", "email", "profile", "groups"],
  claims: {
    openid: ["sub"],
    email: ["email", "email_verified"],
    profile: ["name"],
    groups: ["groups"],
  },
  cookies: { keys: ["of the tests"] },
  findAccount: (_, sub) =>
    known[sub] && { accountId: sub, claims: () => ({ sub, ...known[sub] }) },
});
provider.listen(Number(port), "127.0.0.1", () => console.log("listening"));
