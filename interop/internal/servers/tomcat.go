package servers

import (
	"os"
	"os/exec"
	"testing"
)

// Tomcat starts Tomcat 10, with Digest (SHA-256 and MD5) on everything.
func Tomcat(t testing.TB) *Server {
	t.Helper()
	catalina := program(t, "tomcat10", "/usr/share/tomcat10/bin/catalina.sh")
	program(t, "default-jre-headless", "java")
	dir := folder(t)
	port := freePort(t)
	write(t, dir, "conf/server.xml", fill(tomcatServerXML, "port", port))
	write(t, dir, "conf/web.xml", tomcatDefaultsXML)
	write(t, dir, "conf/tomcat-users.xml", fill(tomcatUsersXML, "user", Username, "password", Password))
	write(t, dir, "webapps/ROOT/WEB-INF/web.xml", fill(tomcatWebXML, "realm", Realm))
	write(t, dir, "webapps/ROOT/index.html", "this is tomcat\n")
	write(t, dir, "temp/.keep", "")
	write(t, dir, "work/.keep", "")
	cmd := exec.Command(catalina, "run")
	cmd.Env = append(os.Environ(), "CATALINA_HOME=/usr/share/tomcat10", "CATALINA_BASE="+dir, "CATALINA_TMPDIR="+dir+"/temp",
		"JAVA_OPTS=-Xmx256m -XX:+UseSerialGC -XX:TieredStopAtLevel=1")
	run(t, dir, []int{port}, cmd)
	return &Server{URL: url("http", port), Dir: dir}
}

const tomcatServerXML = `<Server port="-1">
  <Service name="Catalina">
    <Connector address="127.0.0.1" port="{port}" protocol="HTTP/1.1" />
    <Engine name="Catalina" defaultHost="localhost">
      <Realm className="org.apache.catalina.realm.MemoryRealm" pathname="conf/tomcat-users.xml" />
      <Host name="localhost" appBase="webapps" autoDeploy="false" />
    </Engine>
  </Service>
</Server>
`

const tomcatDefaultsXML = `<web-app xmlns="https://jakarta.ee/xml/ns/jakartaee" version="6.0">
  <servlet>
    <servlet-name>default</servlet-name>
    <servlet-class>org.apache.catalina.servlets.DefaultServlet</servlet-class>
  </servlet>
  <servlet-mapping>
    <servlet-name>default</servlet-name>
    <url-pattern>/</url-pattern>
  </servlet-mapping>
  <welcome-file-list>
    <welcome-file>index.html</welcome-file>
  </welcome-file-list>
</web-app>
`

const tomcatUsersXML = `<tomcat-users xmlns="http://tomcat.apache.org/xml" version="1.0">
  <role rolename="member"/>
  <user username="{user}" password="{password}" roles="member"/>
</tomcat-users>
`

const tomcatWebXML = `<web-app xmlns="https://jakarta.ee/xml/ns/jakartaee" version="6.0" metadata-complete="true">
  <security-constraint>
    <web-resource-collection>
      <web-resource-name>everything</web-resource-name>
      <url-pattern>/*</url-pattern>
    </web-resource-collection>
    <auth-constraint>
      <role-name>member</role-name>
    </auth-constraint>
  </security-constraint>
  <login-config>
    <auth-method>DIGEST</auth-method>
    <realm-name>{realm}</realm-name>
  </login-config>
  <security-role>
    <role-name>member</role-name>
  </security-role>
</web-app>
`
