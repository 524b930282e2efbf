import jakarta.mail.*;
import jakarta.mail.internet.*;
import java.io.FileInputStream;
import java.security.KeyStore;
import java.security.cert.CertificateFactory;
import java.util.Properties;
import javax.net.ssl.*;

/** Arguments: CA file, STARTTLS port, wrapper port, user, password. */
public class JakartaMail {
    public static void main(String[] args) throws Exception {
        KeyStore store = KeyStore.getInstance(KeyStore.getDefaultType());
        store.load(null, null);
        try (FileInputStream in = new FileInputStream(args[0])) {
            store.setCertificateEntry("ca", CertificateFactory.getInstance("X.509").generateCertificate(in));
        }
        TrustManagerFactory trust = TrustManagerFactory.getInstance(TrustManagerFactory.getDefaultAlgorithm());
        trust.init(store);
        SSLContext context = SSLContext.getInstance("TLS");
        context.init(null, trust.getTrustManagers(), null);
        for (boolean wrapper : new boolean[] {false, true}) {
            Properties props = new Properties();
            props.put("mail.transport.protocol", "smtp");
            props.put("mail.smtp.auth", "true");
            props.put("mail.smtp.port", wrapper ? args[2] : args[1]);
            props.put(wrapper ? "mail.smtp.ssl.enable" : "mail.smtp.starttls.enable", "true");
            props.put("mail.smtp.starttls.required", wrapper ? "false" : "true");
            props.put("mail.smtp.ssl.socketFactory", context.getSocketFactory());
            Session session = Session.getInstance(props);
            MimeMessage message = new MimeMessage(session);
            message.setFrom(new InternetAddress("app@example.com", "App"));
            message.setRecipients(Message.RecipientType.TO, "one@example.net,two@example.net");
            message.setRecipients(Message.RecipientType.BCC, "hidden@example.net");
            message.setSubject("Grüße from Jakarta Mail", "UTF-8");
            MimeBodyPart text = new MimeBodyPart();
            text.setText("Schöne Grüße\n.\nlast line\n", "UTF-8");
            MimeBodyPart large = new MimeBodyPart();
            large.setFileName("large.bin");
            large.setContent(new byte[5000000], "application/octet-stream");
            message.setContent(new MimeMultipart(text, large));
            try (Transport transport = session.getTransport()) {
                transport.connect("localhost", args[3], args[4]);
                transport.sendMessage(message, message.getAllRecipients());
            }
        }
    }
}
