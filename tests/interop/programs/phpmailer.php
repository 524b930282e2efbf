<?php
// Arguments: CA file, STARTTLS port, wrapper port, user, password.
require "/usr/share/php/libphp-phpmailer/autoload.php";
use PHPMailer\PHPMailer\PHPMailer;
[, $ca, $starttls, $wrapper, $user, $password] = $argv;
foreach ([[$starttls, "tls"], [$wrapper, "ssl"]] as [$port, $secure]) {
    $mail = new PHPMailer(true);
    $mail->isSMTP();
    $mail->SMTPAuth = true;
    $mail->SMTPSecure = $secure;
    $mail->Host = "localhost";
    $mail->Port = (int) $port;
    $mail->Username = $user;
    $mail->Password = $password;
    $mail->SMTPOptions = ["ssl" => ["cafile" => $ca]];
    $mail->CharSet = "UTF-8";
    $mail->setFrom("app@example.com", "App");
    $mail->addAddress("one@example.net");
    $mail->addAddress("two@example.net");
    $mail->addBCC("hidden@example.net");
    $mail->addCustomHeader("X-SES-CONFIGURATION-SET", "ConfigSet");
    $mail->Subject = "Grüße from PHPMailer";
    $mail->isHTML(true);
    $mail->Body = "<p>Schöne Grüße</p>";
    $mail->AltBody = "Schöne Grüße\n.\nlast line\n";
    $mail->addStringAttachment(str_repeat("\x07", 5000000), "large.bin");
    $mail->send();
}
