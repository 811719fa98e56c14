import Glibc

/// A folder for outputs, made unless it is there.
package struct OutputFolder: Sendable {
  package let path: String
  private let isNew: Bool

  package init(path: String) throws(OutputFileError) {
    isNew = mkdir(path, 0o777) == 0
    var code = errno
    if isNew || code == EEXIST {
      // The slash makes the system refuse what is no folder.
      code = access(path + "/", W_OK | X_OK) == 0 ? 0 : errno
    }
    guard code == 0 else { throw .outputFolder(path, reason: systemErrorText(code)) }
    self.path = path
    if isNew { Interruption.register(path) }
  }

  /// Removes the folder again if it is new and empty.
  package func abandon() {
    guard isNew else { return }
    rmdir(path)
    Interruption.forget(path)
  }
}
