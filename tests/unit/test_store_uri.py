"""What becomes of a MongoDB URI."""

from hypothesis import given, settings
from hypothesis import strategies as st
from pymongo.uri_parser import parse_uri
from twisted.trial.unittest import SynchronousTestCase

from fr_twisted.store.uri import MongoAddress, MongoUriError, parse

PASSWORDS = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1)


class UriTests(SynchronousTestCase):
    """`parse`."""

    def refused(self, uri: str) -> str:
        """Return the message that refuses ``uri``."""
        with self.assertRaises(MongoUriError) as caught:
            parse(uri)
        message = str(caught.exception)
        self.assertNotIn("\n", message)
        return message

    def test_plain(self) -> None:
        """A host alone gives the default port and database."""
        address = parse("mongodb://db.example")
        self.assertEqual(address.hosts, (("db.example", 27017),))
        self.assertEqual(address.database, "fr")
        self.assertEqual(address.txmongo_uri(), "mongodb://db.example:27017/fr")

    def test_replicaSet(self) -> None:
        """Every host and the name of the set are kept."""
        address = parse("mongodb://a:1,b:2,[::1]:3/clinic?replicaSet=rs0")
        self.assertEqual(address.hosts, (("a", 1), ("b", 2), ("::1", 3)))
        self.assertEqual(address.txmongo_uri(), "mongodb://a:1,b:2,[::1]:3/clinic?replicaSet=rs0")

    def test_logsInWithoutDatabase(self) -> None:
        """Credentials without a database in the path still reach txmongo with a database and an authSource."""
        for uri in ("mongodb://u:p@h/?authSource=admin", "mongodb://u:p@h", "mongodb://u:p@h/"):
            self.assertEqual(parse(uri).txmongo_uri(), "mongodb://u:p@h:27017/fr?authSource=admin", uri)

    def test_authSourceIsTheDatabase(self) -> None:
        """Without authSource the user is looked up in the database of the path, as every MongoDB client does."""
        self.assertEqual(parse("mongodb://u:p@h/clinic").auth_source, "clinic")
        self.assertEqual(parse("mongodb://u:p@h/clinic?authSource=admin").auth_source, "admin")

    @given(st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1), PASSWORDS)
    @settings(deadline=None, max_examples=50)
    def test_credentialsSurvive(self, user: str, password: str) -> None:
        """Any user and password come out of the URI for txmongo as they went in, and the password is not shown."""
        address = MongoAddress((("h", 1),), username=user, password=password, auth_source="admin")
        again = parse_uri(address.txmongo_uri())
        self.assertEqual((again["username"], again["password"]), (user, password))
        self.assertNotIn("password", repr(address))
        self.assertEqual(address.redacted, f"mongodb://{user}@h:1/fr")

    def test_malformed(self) -> None:
        """What is no URI is refused, without a word of what may be a password."""
        for uri in ("", "postgres://h", "mongodb://", "mongodb://u:s3cr@t:x@h:1/", "mongodb://u:s3cr/et@h/"):
            message = self.refused(uri)
            self.assertNotIn("s3cr", message)
            self.assertIn("mongodb://[user:password@]host", message)

    def test_srv(self) -> None:
        """A DNS seed list is refused with what to write instead."""
        self.assertIn("write the hosts out", self.refused("mongodb+srv://u:p@cluster.example/"))

    def test_unixSocket(self) -> None:
        """A socket file is refused."""
        self.assertIn("host:port", self.refused("mongodb://%2Ftmp%2Fmongodb-27017.sock/fr"))

    def test_tls(self) -> None:
        """TLS options become files to load; a file alone switches TLS on."""
        address = parse("mongodb://h/?tls=true&tlsCAFile=/ca.pem&tlsCertificateKeyFile=/me.pem")
        self.assertEqual((address.tls, address.tls_ca, address.tls_cert), (True, "/ca.pem", "/me.pem"))
        self.assertTrue(parse("mongodb://h/?tlsCAFile=/ca.pem").tls)
        self.assertFalse(parse("mongodb://h/?ssl=false").tls)

    def test_tlsContradiction(self) -> None:
        """TLS files together with tls=false are refused."""
        self.assertIn("contradicts", self.refused("mongodb://h/?tlsCAFile=/ca.pem&tls=false"))
        self.assertIn("true or false", self.refused("mongodb://h/?tls=yes"))

    def test_notVerifying(self) -> None:
        """Switching verification off is refused by name."""
        for name in ("tlsInsecure", "tlsAllowInvalidCertificates", "tlsAllowInvalidHostnames"):
            self.assertIn(f"{name}=true", self.refused(f"mongodb://h/?tls=true&{name}=true"))
            parse(f"mongodb://h/?tls=true&{name}=false")

    def test_timesAndSizes(self) -> None:
        """Timeouts in milliseconds become seconds, the pool's size a number."""
        address = parse(
            "mongodb://h/?maxPoolSize=8&connectTimeoutMS=1500&serverSelectionTimeoutMS=3000"
            "&socketTimeoutMS=2500&heartbeatFrequencyMS=4000"
        )
        self.assertEqual(address.pool_size, 8)
        self.assertEqual((address.connect_timeout, address.open_timeout), (1.5, 3.0))
        self.assertEqual((address.timeout, address.ping_interval), (2.5, 4.0))
        for bad in ("maxPoolSize=0", "maxPoolSize=x", "timeoutMS=-1", "timeoutMS=", "maxPoolSize=1000"):
            self.assertIn("a whole number from", self.refused(f"mongodb://h/?{bad}"))

    def test_whatIsDoneAnyway(self) -> None:
        """Options that say what is done anyway are accepted, their opposites refused with the reason."""
        parse(
            "mongodb://h/?w=majority&journal=true&retryWrites=true&readConcernLevel=majority&appName=Cluster0"
        )
        for option in ("w=1", "journal=false", "retryWrites=false", "readConcernLevel=local"):
            self.assertIn(option, self.refused(f"mongodb://h/?{option}"))

    def test_refusedByName(self) -> None:
        """Everything else that txmongo would ignore is refused by its name."""
        for name in (
            "directConnection",
            "compressors",
            "wtimeoutMS",
            "maxIdleTimeMS",
            "loadBalanced",
            "nonsense",
        ):
            self.assertIn(name, self.refused(f"mongodb://h/?{name}=1"))

    def test_givenTwice(self) -> None:
        """An option given twice is refused, whatever its case."""
        self.assertIn("twice", self.refused("mongodb://h/?tls=true&TLS=false"))

    def test_mechanisms(self) -> None:
        """Mechanisms that txmongo does not speak are refused by name."""
        self.assertIn("SCRAM-SHA-256", self.refused("mongodb://u:p@h/?authMechanism=SCRAM-SHA-256"))
        self.assertIn(
            "authMechanism=SCRAM-SHA-1", parse("mongodb://u:p@h/?authMechanism=SCRAM-SHA-1").txmongo_uri()
        )
        self.assertIn("no user", self.refused("mongodb://h/?authMechanism=SCRAM-SHA-1"))
        self.assertIn("no password", self.refused("mongodb://u@h/"))

    def test_x509(self) -> None:
        """X.509 needs a certificate; its subject is the user and txmongo gets a password that it will not use."""
        self.assertIn("tlsCertificateKeyFile", self.refused("mongodb://h/?authMechanism=MONGODB-X509"))
        no_user = "mongodb://h/?tlsCertificateKeyFile=/me.pem&authMechanism=MONGODB-X509"
        self.assertIn("needs the user", self.refused(no_user))
        address = parse("mongodb://CN%3Dfr@h/?tlsCertificateKeyFile=/me.pem&authMechanism=MONGODB-X509")
        self.assertEqual(
            address.txmongo_uri(),
            "mongodb://CN%3Dfr:x509@h:27017/fr?authMechanism=MONGODB-X509&authSource=%24external",
        )
